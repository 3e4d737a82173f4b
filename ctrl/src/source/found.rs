//! What a source that is told things knows of one identity: the last that was good, and what is wrong now.

use std::sync::Arc;

/// `G` is what is good, `F` what is wrong.
pub struct Found<G, F> {
    good: Option<Arc<G>>,
    /// Of what there is now; the good one is then from before.
    fault: Option<F>,
    looked: bool,
    told: bool,
}

/// What came of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Another one than before, be it good or wrong.
    Changed,
    /// The same as before.
    Same,
}

impl<G, F> Default for Found<G, F> {
    fn default() -> Self {
        Self { good: None, fault: None, looked: false, told: false }
    }
}

impl<G: PartialEq, F: PartialEq> Found<G, F> {
    pub fn take(&mut self, seen: Result<G, F>) -> Taken {
        let first = !std::mem::replace(&mut self.looked, true);
        let same = match seen {
            Ok(good) => {
                let same = self.fault.is_none() && self.good.as_deref() == Some(&good);
                self.fault = None;
                self.good = Some(Arc::new(good));
                same
            }
            Err(fault) => {
                let same = self.fault.as_ref() == Some(&fault);
                self.fault = Some(fault);
                same
            }
        };
        let taken = if same && !first { Taken::Same } else { Taken::Changed };
        self.told &= taken == Taken::Same;
        taken
    }

    /// What there is now; what was good before is not asked for here. None: nobody has looked.
    pub fn now(&self) -> Option<Result<&Arc<G>, &F>> {
        match (&self.fault, &self.good) {
            (Some(fault), _) => Some(Err(fault)),
            (None, Some(good)) => Some(Ok(good)),
            (None, None) => None,
        }
    }

    pub fn last_good(&self) -> Option<&Arc<G>> {
        self.good.as_ref()
    }

    pub fn has_looked(&self) -> bool {
        self.looked
    }

    /// Whether [`Self::now`] says something else than when this was last asked.
    pub fn has_news(&mut self) -> bool {
        self.looked && !std::mem::replace(&mut self.told, true)
    }
}
