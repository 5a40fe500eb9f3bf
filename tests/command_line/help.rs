//! Every command helps.

use crate::support::*;

/// The commands that the program's own help names.
fn commands() -> Vec<String> {
    let folder = folder();
    let help = run(folder.path(), &["--help"]).well().stdout;
    let list = help.split("Commands:").nth(1).expect("a list of commands");
    list.lines()
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_string())
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn every_command_shows_an_example() {
    let commands = commands();
    for expected in ["train", "step", "plan"] {
        assert!(commands.iter().any(|c| c == expected), "{commands:?}");
    }
    for command in commands {
        let folder = folder();
        let help = run(folder.path(), &[&command, "--help"]).well();
        let examples = help.stdout.split("Example").nth(1).unwrap_or_default();
        assert!(
            examples.contains(&format!("alexnet-mp {command}")),
            "{command}: {}",
            help.stdout
        );
        assert!(help.stderr.is_empty(), "{command}: {}", help.stderr);
    }
}

#[test]
fn the_version_is_printed() {
    let folder = folder();
    let printed = run(folder.path(), &["--version"]).well().stdout;
    assert_eq!(
        printed.trim(),
        format!("alexnet-mp {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_plan_goes_to_stdout_and_nothing_else_does() {
    let folder = folder();
    let plan = run(folder.path(), &["plan"]).well();
    assert!(plan.stdout.contains("60,965,224"), "{}", plan.stdout);
    assert!(plan.stdout.contains("30,015,488"), "{}", plan.stdout);
    assert_eq!(plan.stderr, "");
    let difference = run(folder.path(), &["plan", "--diff", "paper", "source-145"]).well();
    assert!(
        difference.stdout.contains("layers.conv1.then"),
        "{}",
        difference.stdout
    );
}
