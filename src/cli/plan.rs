//! `alexnet-mp plan`.

use super::open::ConfigFlags;
use crate::config::{Config, PRESETS, nearest};
use crate::error::{Result, usage};
use crate::network::describe;
use crate::report::messages::result;

/// Print the two columns, their exchanges, parameters, memory and the bytes that cross
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp plan                           the paper's network
  alexnet-mp plan --config quickstart
  alexnet-mp plan --diff paper source-145   how two presets differ")]
pub struct Plan {
    /// Print how two presets or TOML files differ
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "config")]
    diff: Option<Vec<String>>,
    #[command(flatten)]
    config: ConfigFlags,
}

impl Plan {
    pub fn run(self) -> Result<()> {
        if let Some(names) = &self.diff {
            let [a, b] = [&names[0], &names[1]].map(|name| self.named(name));
            result(&describe::difference(&names[0], &a?, &names[1], &b?));
            return Ok(());
        }
        let config = self.config.load("paper", &[])?;
        result(describe::describe(&config.plan()?).trim_end());
        Ok(())
    }

    fn named(&self, name: &str) -> Result<toml::Table> {
        let hint = || {
            nearest(name, PRESETS.iter().map(|p| p.0))
                .map_or(String::new(), |n| format!("; did you mean \"{n}\"?"))
        };
        let config = Config::load(name, &self.config.overrides).map_err(|e| {
            if name.contains(['/', '.']) {
                e
            } else {
                usage(format!("{e}{}", hint()))
            }
        })?;
        Ok(toml::Table::try_from(config).expect("a configuration is a table"))
    }
}
