//! What is fetched, in the turns of the control process: asked for when it is due, taken when it has come.

use snapshot::Network;

use super::Core;
use crate::clock;
use crate::config::{Loaded, SpiffeId};
use crate::fetch::Heard;
use crate::trusted::Trusted;

impl Core {
    /// What the configuration in force wants to be fetched, from now on.
    pub(super) fn keep_fetching(&mut self) {
        self.fetches.keep(&self.loaded);
    }

    /// Takes over what has come, and has asked for what is due.
    pub(super) fn fetch(&mut self, network: &Network) {
        let now = clock::now();
        let judge = |crl: (&str, &crate::web::Url, &std::sync::Arc<_>), loaded: &_| {
            self.crls.judge(crl, loaded, &self.identities, now)
        };
        let identities = &self.identities;
        let trusted = |id: &SpiffeId, loaded: &Loaded| Trusted::of(id, loaded, identities, now);
        let heard = self.fetches.hear(now, &mut self.loaded, judge, trusted);
        match heard {
            Heard::Nothing | Heard::News => {}
            Heard::Trust => self.inputs.changed(),
        }
        self.fetches.ask(|id| trusted(id, &self.loaded));
        if heard != Heard::Nothing {
            self.show(network);
        }
    }
}
