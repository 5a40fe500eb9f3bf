//! The program as a user or a script sees it: exit codes, one-line messages, files.

mod disks;
mod faults;
mod going_on;
mod gpus;
mod help;
mod images;
mod interruption;
mod kill;
mod mistakes;
mod numbers;
mod preparing;
mod pytorch;
mod reproducible;
mod results;
mod run_folder;
mod run_in_use;
mod step;
mod support;
