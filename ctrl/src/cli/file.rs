//! A file of configuration that a command is given: its text, and its name in the directory.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;

use super::Failure;

#[derive(Debug, Args)]
pub struct File {
    /// The file; `-` reads stdin and takes its name from --name.
    #[arg(short, long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Name in the configuration directory, if not the file's own.
    #[arg(long, value_name = "NAME.yaml", required_if_eq("file", "-"))]
    name: Option<String>,
}

impl File {
    pub fn new(file: PathBuf, name: Option<String>) -> Self {
        Self { file, name }
    }

    pub fn name(&self) -> Result<String, Failure> {
        let own = self.file.file_name().and_then(|n| n.to_str()).map(str::to_owned);
        self.name.clone().or(own).ok_or_else(|| Failure::Usage(format!("{} has no name", self.file.display())))
    }

    pub fn text(&self) -> Result<String, Failure> {
        let mut text = String::new();
        let read = match self.file.to_str() {
            Some("-") => std::io::stdin().read_to_string(&mut text),
            Some(_) | None => std::fs::File::open(&self.file).and_then(|mut f| f.read_to_string(&mut text)),
        };
        match read {
            Ok(_) => Ok(text),
            Err(e) => Err(Failure::Other(anyhow::anyhow!("{}: {e}", self.file.display()))),
        }
    }
}
