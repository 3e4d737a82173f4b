//! A Gateway that runs, and what a change of it is held against.
//!
//! A change that names an interface or a directory that is not there would take a gateway down that serves: it is
//! refused, and the one before stays in force. At a first start such things may come later, as they do at boot.
//! Other changes are right and cost something: the dataplane starts anew for them, or `sluice-ctrl` has to.

use std::path::Path;

use serde::{Deserialize, Serialize};
use snapshot::Boot;

use crate::config::{Admin, Diagnostic, Gateway, Loaded};
use crate::publish::Publisher;
use crate::view::Failure;
use crate::{assemble, netlink};

/// `GET /v1/running`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub boot: Boot,
    /// What `sluice-ctrl` was started with.
    pub admin: Admin,
    pub audit_file: Option<String>,
    /// All that there are here, by name.
    pub interfaces: Vec<String>,
    /// A dataplane is connected.
    pub dataplane: bool,
}

impl Running {
    pub fn of(gateway: &Gateway, admin: &Admin) -> Self {
        Self {
            boot: assemble::boot(gateway),
            admin: admin.clone(),
            audit_file: gateway.audit.as_ref().map(|audit| audit.file.clone()),
            interfaces: vec![],
            dataplane: false,
        }
    }

    /// What is here now.
    pub async fn look_around(&mut self, publisher: &Publisher) -> Result<(), netlink::Error> {
        self.dataplane = publisher.state().borrow().dataplane.is_some();
        self.interfaces = netlink::interfaces().await?;
        Ok(())
    }

    /// Whether that Gateway names anything else that has to be there.
    pub fn names_others(&self, then: &Gateway) -> bool {
        self.boot.ports != then.ports || self.audit_file != then.audit.as_ref().map(|audit| audit.file.clone())
    }

    /// What it names anew that is not there.
    pub fn faults(&self, then: &Gateway) -> Vec<Diagnostic> {
        self.absent_ports(then).into_iter().chain(self.absent_directory(then)).collect()
    }

    fn absent_ports(&self, then: &Gateway) -> Vec<Diagnostic> {
        let is_here = |interface: &String| self.interfaces.contains(interface);
        let known = |interface: &String| self.boot.ports.iter().any(|port| port.interface == *interface);
        // One that waits for its interfaces serves nobody whom a change could cut off.
        let serves = self.dataplane || self.boot.ports.iter().all(|port| is_here(&port.interface));
        let named = then.ports.iter().map(|port| &port.interface).zip(&then.port_places).enumerate();
        named
            .filter(|(_, (interface, _))| serves && !known(interface) && !is_here(interface))
            .map(|(nth, (interface, place))| {
                let path = format!("spec.ports[{nth}].interface");
                Diagnostic::error(place, path, format!("there is no interface {interface} here"))
                    .help(format!("there are {}", self.interfaces.join(", ")))
            })
            .collect()
    }

    fn absent_directory(&self, then: &Gateway) -> Option<Diagnostic> {
        let (audit, place) = (then.audit.as_ref()?, then.audit_place.as_ref()?);
        let directory = absent_directory(&audit.file).filter(|_| self.audit_file.as_ref() != Some(&audit.file))?;
        let fault =
            Diagnostic::error(place, "spec.audit.file", format!("there is no directory {}", directory.display()));
        Some(fault.help("make it first, or name a file in a directory that is there"))
    }

    /// The fields for whose change the dataplane starts anew.
    pub fn restarts_for(&self, then: &Gateway) -> Vec<&'static str> {
        let Boot { node, ports, cores, waiting, on_absent, groups, limits, timeouts, pin_directory } = &self.boot;
        let then = assemble::boot(then);
        let fields = [
            ("metadata.name", *node != then.node),
            ("spec.ports", *ports != then.ports),
            ("spec.cores", *cores != then.cores),
            ("spec.waiting", *waiting != then.waiting),
            ("spec.onAbsent", *on_absent != then.on_absent),
            ("spec.tls.groups", *groups != then.groups),
            ("spec.limits", *limits != then.limits),
            ("spec.timeouts", *timeouts != then.timeouts),
            ("spec.pinDirectory", *pin_directory != then.pin_directory),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }

    /// What is to be known of a change before and after it is made.
    pub fn notes(&self, then: &Loaded) -> Vec<String> {
        let restarts = self.restarts_for(&then.gateway);
        let restarts = (!restarts.is_empty())
            .then(|| format!("{} restarts the dataplane: living connections are reset", restarts.join(", ")));
        let admin = (self.admin != then.gateway.admin)
            .then(|| "spec.admin takes effect when sluice-ctrl is restarted".to_owned());
        restarts.into_iter().chain(admin).collect()
    }

    /// Why it is not restarted unasked. None: nothing would be reset.
    pub fn refusal(&self, then: &Loaded, living: usize) -> Option<Failure> {
        let fields = self.restarts_for(&then.gateway);
        let connections = if living == 1 { "connection" } else { "connections" };
        let error = format!(
            "{living} living {connections} would be reset, since {} restarts the dataplane; nothing was changed. \
             Use --force if that is meant",
            fields.join(", ")
        );
        (living > 0 && !fields.is_empty()).then(|| Failure { error, details: vec![] })
    }
}

/// The directory that a file would be in, if it is not there.
pub fn absent_directory(file: &str) -> Option<&Path> {
    Path::new(file).parent().filter(|directory| !directory.is_dir())
}
