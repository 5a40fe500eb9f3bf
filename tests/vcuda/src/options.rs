//! What the virtual driver can be told to be and to do.

/// In which order work of different streams runs. Every order is one that a GPU may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// At the call that submits it.
    Eager,
    /// Only when the host waits for it, or something does that the host waits for.
    Lazy,
    /// Randomly interleaved, the same for the same seed.
    Random(u64),
}

/// In which order the threads of a block take turns between barriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fibres {
    Ascending,
    Descending,
    Random(u64),
}

/// When the bytes of a `cp.async` arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsyncCopies {
    /// At the instruction itself.
    Eager,
    /// At the wait.
    Deferred,
}

/// Options of the virtual driver. `None` leaves what the environment says (`VCUDA_DEVICES`,
/// `VCUDA_STREAMS`, …), or the value in brackets.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Number of devices, at most 8 \[2\].
    pub devices: Option<u32>,
    /// Bytes of memory of each device \[16 GiB\]; it takes real memory only as it is used.
    pub memory: Option<u64>,
    /// Bytes of address space of each device, at most \[32 GiB\]. Addresses are used again when all
    /// have been used.
    pub addresses: Option<u64>,
    /// Whether devices may access each other's memory \[yes\].
    pub peer_access: Option<bool>,
    /// Copies between devices report success and deliver wrong bytes \[no\].
    pub corrupt_peer: Option<bool>,
    /// Copies between devices are done; otherwise refused, though access is granted \[yes\].
    pub peer_copies: Option<bool>,
    /// Copies from device memory to device memory may be captured in a graph \[yes\].
    pub capture_copies: Option<bool>,
    /// This launch, counted from 1 since the last option was set, never ends \[0: none\].
    pub hang_at: Option<u64>,
    /// This launch fails, and its context with it \[0: none\].
    pub fail_at: Option<u64>,
    /// This launch is refused at the call; nothing else happens \[0: none\].
    pub refuse_at: Option<u64>,
    /// Graphs may be launched; otherwise that is refused, after a capture that went well \[yes\].
    pub launch_graphs: Option<bool>,
    /// \[eager\]
    pub streams: Option<Streams>,
    /// \[ascending\]
    pub fibres: Option<Fibres>,
    /// \[deferred\]
    pub async_copies: Option<AsyncCopies>,
    /// The error with which the driver does not start \[0: it does\].
    pub start_error: Option<u32>,
    /// As `cuDriverGetVersion` gives it \[13000\]; below 12000, modules do not load.
    pub driver_version: Option<u32>,
    /// 10 · major + minor \[90\]; below 75, modules do not load.
    pub capability: Option<u32>,
    /// \[132\]
    pub multiprocessors: Option<u32>,
}

impl Options {
    /// Names and values as the driver reads them.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let number = |value: Option<u32>| value.map(|n| n.to_string());
        let switch = |value: Option<bool>| value.map(|on| u32::from(on).to_string());
        [
            ("devices", number(self.devices)),
            ("memory", self.memory.map(|n| n.to_string())),
            ("addresses", self.addresses.map(|n| n.to_string())),
            ("peer_access", switch(self.peer_access)),
            ("corrupt_peer", switch(self.corrupt_peer)),
            ("peer_copies", switch(self.peer_copies)),
            ("capture_copies", switch(self.capture_copies)),
            ("hang_at", self.hang_at.map(|n| n.to_string())),
            ("fail_at", self.fail_at.map(|n| n.to_string())),
            ("refuse_at", self.refuse_at.map(|n| n.to_string())),
            ("launch_graphs", switch(self.launch_graphs)),
            ("streams", self.streams.map(Streams::text)),
            ("fibres", self.fibres.map(Fibres::text)),
            ("async_copies", self.async_copies.map(AsyncCopies::text)),
            ("start_error", number(self.start_error)),
            ("driver_version", number(self.driver_version)),
            ("capability", number(self.capability)),
            ("multiprocessors", number(self.multiprocessors)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

impl Streams {
    fn text(self) -> String {
        match self {
            Self::Eager => "eager".into(),
            Self::Lazy => "lazy".into(),
            Self::Random(seed) => format!("random:{seed}"),
        }
    }
}

impl Fibres {
    /// The orders that tests go through: each shows mistakes that another hides.
    pub const ALL: [Self; 3] = [Self::Ascending, Self::Descending, Self::Random(1)];

    fn text(self) -> String {
        match self {
            Self::Ascending => "ascending".into(),
            Self::Descending => "descending".into(),
            Self::Random(seed) => format!("random:{seed}"),
        }
    }
}

impl AsyncCopies {
    fn text(self) -> String {
        match self {
            Self::Eager => "eager".into(),
            Self::Deferred => "deferred".into(),
        }
    }
}
