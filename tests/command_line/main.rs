//! The program as a user or a script sees it: exit codes, one-line messages, files.

mod disks;
mod faults;
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
mod run_folder;
mod step;
mod support;
