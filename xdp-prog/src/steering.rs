//! The programs on their ports, and the tables that steer them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use libbpf_rs::{MapCore, MapFlags, Object, ProgramMut};

use crate::maps::{self, OUTCOMES, Table};
use crate::tc::Filter;
use crate::{Error, FlowTuple, Flows, MAX_PORTS, Mode, Options, Port, Result, Side, Sockets, namespace, pin, port};

/// The programs, attached. Dropping it leaves them in force; see [`crate::detach`].
#[derive(Debug)]
pub struct Steering {
    object: Object,
    pin_directory: PathBuf,
    ports: BTreeMap<u16, Attached>,
    xsks: Arc<Table>,
    port_table: Table,
    flows: Arc<Table>,
    pub(crate) sources: Table,
    pub(crate) source_prefixes: Table,
    pub(crate) captures: Table,
    pub(crate) addresses: Table,
    pub(crate) denied: Table,
    pub(crate) guarded: Table,
    pub(crate) bypasses: Table,
    counters: Table,
}

#[derive(Debug)]
pub(crate) struct Attached {
    pub port: Port,
    pub interface: u32,
}

impl Steering {
    /// Loads the programs and puts them on every port, or adopts what is pinned: the maps with all
    /// that they hold, the links with the program replaced in place. If it fails, what it has
    /// added itself is removed again.
    pub fn attach(options: &Options) -> Result<Self> {
        check_ports(&options.ports)?;
        let loaded = pin::load(options)?;
        let adopted = loaded.adopted;
        let result = Self::with_object(loaded.object, options).and_then(|mut steering| {
            steering.start(options)?;
            Ok(steering)
        });
        if result.is_err() && !adopted {
            // A first attach that fails leaves nothing behind; a failed adoption leaves what was.
            if let Err(error) = pin::detach(&options.pin_directory) {
                tracing::warn!(%error, "could not remove what a failed attach has pinned");
            }
        }
        result
    }

    fn with_object(object: Object, options: &Options) -> Result<Self> {
        let table = |name| pin::table(&object, name);
        Ok(Self {
            pin_directory: options.pin_directory.clone(),
            ports: BTreeMap::new(),
            xsks: Arc::new(table("xsks")?),
            port_table: table("ports")?,
            flows: Arc::new(table("flows")?),
            sources: table("sources")?,
            source_prefixes: table("source_prefixes")?,
            captures: table("captures")?,
            addresses: table("addresses")?,
            denied: table("denied")?,
            guarded: table("guarded")?,
            bypasses: table("bypasses")?,
            counters: table("counters")?,
            object,
        })
    }

    fn start(&mut self, options: &Options) -> Result<()> {
        let grace = u64::try_from(options.grace.as_nanos()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2);
        let settings = pin::table(&self.object, "settings")?;
        settings.put(&[0; 4], &maps::settings(options.on_absent_pass, grace))?;
        namespace::record(&options.pin_directory)?;
        // All names before anything is attached: a typo should not leave half a gateway.
        for port in &options.ports {
            let interface = port::interface_index(&port.interface)?;
            self.ports.insert(port.index, Attached { port: port.clone(), interface });
        }
        self.renumber_flows()?;
        let indices: Vec<u16> = self.ports.keys().copied().collect();
        for index in indices {
            self.put_on(index, false)?;
        }
        self.leave_others()
    }

    /// Programs on one port. The ports map first, since a program on an unknown interface passes
    /// everything. Then the filters, if the interface is known to be ours: captures may be in force, and
    /// nothing is to come by before the shield stands. One that turns out to be somebody else's may have
    /// their filters, so there steering is tried first.
    fn put_on(&self, index: u16, ours: bool) -> Result<()> {
        let Attached { port, interface } = self.attached(index)?;
        let key = interface.to_ne_bytes();
        let known = self.port_table.value(&key)?.is_some();
        self.port_table.put(&key, &maps::port(port))?;
        if ours || known {
            self.put_filters_on(port, *interface)?;
        }
        let steer = self.program("steer")?;
        if let Err(error) = port::attach(steer.as_fd(), &self.pin_directory, port, *interface) {
            if !known {
                self.port_table.remove(&key)?;
            }
            return Err(error);
        }
        self.put_filters_on(port, *interface)
    }

    fn put_filters_on(&self, port: &Port, interface: u32) -> Result<()> {
        let shield = Filter::Shield;
        shield.attach(self.program(shield.name())?.as_fd(), &port.interface, interface)?;
        let guard = Filter::Guard;
        match port.side {
            Side::Inside => guard.attach(self.program(guard.name())?.as_fd(), &port.interface, interface),
            Side::Outside => {
                guard.detach(interface);
                Ok(())
            }
        }
    }

    /// Takes programs off interfaces that are no port any more.
    fn leave_others(&self) -> Result<()> {
        let keep: Vec<PathBuf> =
            self.ports.values().map(|at| pin::link_path(&self.pin_directory, &at.port.interface)).collect();
        for (path, interface) in pin::links(&self.pin_directory)? {
            if !keep.contains(&path) {
                tracing::info!(?interface, "{} is no port any more", path.display());
                pin::take_off(&path)?;
            }
        }
        for key in self.port_table.entries()?.keys() {
            let interface = key.as_slice().try_into().map(u32::from_ne_bytes).unwrap_or(0);
            if !self.ports.values().any(|at| at.interface == interface) {
                for filter in Filter::ALL {
                    filter.detach(interface);
                }
                self.port_table.remove(key)?;
            }
        }
        Ok(())
    }

    /// Adopted flows of an interface whose port index has changed follow it.
    fn renumber_flows(&self) -> Result<()> {
        let mut moved = BTreeMap::new();
        for (key, value) in self.port_table.entries()? {
            let interface = key.as_slice().try_into().map(u32::from_ne_bytes).unwrap_or(0);
            let now = self.ports.values().find(|at| at.interface == interface).map(|at| at.port.index);
            if let (Some(was), Some(now)) = (maps::port_index(&value), now)
                && was != now
            {
                moved.insert(was, now);
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        let flows = self.flows();
        let old = flows.list()?;
        let renamed: Vec<_> = old
            .iter()
            .map(|flow| FlowTuple { port: moved.get(&flow.port).copied().unwrap_or(flow.port), ..*flow })
            .collect();
        for flow in renamed.iter().filter(|flow| !old.contains(flow)) {
            if !flows.insert(flow)? {
                return Err(Error::Full {
                    map: "flows",
                    capacity: flows.capacity(),
                    wanted: old.len() + renamed.len(),
                });
            }
        }
        for key in self.port_table.entries()?.keys() {
            let interface = key.as_slice().try_into().map(u32::from_ne_bytes).unwrap_or(0);
            if let Some(at) = self.ports.values().find(|at| at.interface == interface) {
                self.port_table.put(key, &maps::port(&at.port))?;
            }
        }
        for flow in old.iter().filter(|flow| !renamed.contains(flow)) {
            flows.remove(flow)?;
        }
        Ok(())
    }

    /// The interface came back under another index, or its link is gone.
    pub fn reattach(&mut self, port: u16) -> Result<()> {
        let interface = port::interface_index(&self.attached(port)?.port.interface)?;
        if let Some(attached) = self.ports.get_mut(&port) {
            attached.interface = interface;
        }
        self.put_on(port, true)?;
        self.leave_others()
    }

    /// The mode that the kernel says the port's program is in. None: it is on no interface now.
    pub fn mode(&self, port: u16) -> Option<Mode> {
        let interface = self.attached(port).ok()?.interface;
        port::mode(self.program("steer").ok()?.as_fd(), interface)
    }

    /// Gives a queue's captured frames to an AF_XDP socket. It leaves by itself when it closes.
    pub fn set_xsk(&self, port: u16, queue: u32, socket: BorrowedFd) -> Result<()> {
        self.attached(port)?;
        self.sockets().set(port, queue, socket)
    }

    pub fn clear_xsk(&self, port: u16, queue: u32) -> Result<()> {
        self.attached(port)?;
        self.sockets().clear(port, queue)
    }

    /// A handle for whoever opens sockets.
    pub fn sockets(&self) -> Sockets {
        Sockets { table: Arc::clone(&self.xsks) }
    }

    /// A handle for workers.
    pub fn flows(&self) -> Flows {
        Flows { table: Arc::clone(&self.flows) }
    }

    /// Outcomes by name, summed over CPUs, since the maps were made.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let sum = |index: usize| -> u64 {
            let key = (index as u32).to_ne_bytes();
            let values = self.counters.handle.lookup_percpu(&key, MapFlags::ANY).ok().flatten().unwrap_or_default();
            values.iter().filter_map(|value| value.as_slice().try_into().ok().map(u64::from_ne_bytes)).sum()
        };
        OUTCOMES.iter().enumerate().map(|(index, name)| (*name, sum(index))).collect()
    }

    pub(crate) fn program(&self, name: &'static str) -> Result<ProgramMut<'_>> {
        self.object
            .progs_mut()
            .find(|program| program.name() == name)
            .ok_or_else(|| Error::Invalid { what: format!("the steering object has no program {name}") })
    }

    pub(crate) fn attached(&self, port: u16) -> Result<&Attached> {
        self.ports.get(&port).ok_or_else(|| Error::NoPort { port, known: self.ports.keys().copied().collect() })
    }
}

fn check_ports(ports: &[Port]) -> Result<()> {
    for (at, port) in ports.iter().enumerate() {
        if port.index >= MAX_PORTS {
            let what = format!("{} has index {}: use 0 to {}", port.interface, port.index, MAX_PORTS - 1);
            return Err(Error::Ports { what });
        }
        let twin = |other: &&Port| other.index == port.index || other.interface == port.interface;
        if let Some(other) = ports[..at].iter().find(twin) {
            let what = format!("{other:?} and {port:?} share an interface or an index");
            return Err(Error::Ports { what });
        }
    }
    Ok(())
}
