//! What a case is called for people, and what it counts per.

/// How often a case of one module does what it measures.
pub const TIMES: u64 = 1_000;

/// Where a case that finds out what it has done writes its units: this variable names the file.
pub const UNITS: &str = "BENCH_UNITS";

/// The cases that are counted only if FULL is set end so.
const FULL: &str = "_full";

/// The last two parts of a gungraun path: function and ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// As gungraun knows it.
    pub path: String,
    function: String,
    id: String,
}

impl Case {
    /// From a line of gungraun's list: `file::group::function::id: benchmark`.
    pub fn listed(line: &str) -> Option<Self> {
        let path = line.strip_suffix(": benchmark").or_else(|| line.strip_suffix(": bench"))?;
        let (rest, id) = path.rsplit_once("::")?;
        let (_, function) = rest.rsplit_once("::")?;
        Some(Self { path: path.into(), function: function.into(), id: id.into() })
    }

    pub fn is_full(&self) -> bool {
        self.function.ends_with(FULL)
    }

    /// `flow table, 100 flows` for the function `flow_table` and the ID `flows_100`.
    pub fn name(&self) -> String {
        let what = self.function.strip_suffix(FULL).unwrap_or(&self.function).replace('_', " ");
        let (kind, size) = self.id.rsplit_once('_').expect("IDs are a word and a number");
        format!("{what}, {size} {kind}")
    }

    /// What it does a thousand times, unless it says for itself what it has done.
    pub fn unit(&self) -> &'static str {
        match self.function.as_str() {
            "parse" | "checksum" | "flow_table" => "packet",
            "seal" | "open" => "record",
            "tcp" => "segment",
            "allow_list" | "inbound_verdict" | "policy_verdict" | "egress_route" => "decision",
            other => panic!("{other} has no unit in name.rs, and told none"),
        }
    }
}
