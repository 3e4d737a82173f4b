//! Measures Sluice beside its peers, in one run on one machine.
//!
//! ```text
//!   client ── gateway A ── wire ── gateway B ── server
//!   (load)    sluice, a peer or none: in turn         (load)
//! ```
//! [`plan`] says what is measured in which order; [`stage`] lays the namespaces, puts a
//! [`contender`] in its place and checks it ([`probe`], [`wire`], [`facts`]); [`load`] runs as
//! processes of their own inside them and measures, with [`cpu`]; [`limits`] says what the machine
//! could do at best; [`run`] writes each of the [`samples`] down, and [`summary`], [`ratio`],
//! [`goals`], [`report`] and [`plot`] say what came of them. [`agree`] says whether another run came
//! to the same, [`profile`] where the time goes; [`cut`] is a bench by itself: living connections that a
//! change takes back.

pub mod agree;
mod beside;
pub mod cli;
pub mod contender;
pub mod cpu;
pub mod cut;
pub mod environment;
pub mod facts;
pub mod figures;
pub mod files;
pub mod gate;
pub mod goals;
pub mod limits;
pub mod load;
pub mod peers;
pub mod plan;
pub mod plot;
pub mod probe;
pub mod profile;
pub mod progress;
pub mod ratio;
pub mod report;
pub mod run;
pub mod samples;
pub mod scale;
pub mod stage;
pub mod storm;
pub mod summary;
pub mod svg;
pub mod wire;
