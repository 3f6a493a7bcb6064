//! What is done with a container, one act after the other.

/// A word of a verb that is not about the container.
pub(super) const ALONE: &str = "ALONE";

/// One act. A verb's arguments end with the container's name, unless they hold `ID` themselves, or
/// [`ALONE`].
#[derive(Debug)]
pub(super) enum Act {
    /// A verb that leaves the container's program our streams: create and run.
    Make(Vec<String>),
    /// The same, with a terminal, whose master comes through a console socket.
    MakeOnTerminal(Vec<String>),
    /// A verb whose exit code is compared.
    Verb(Vec<String>),
    /// A verb whose output is compared as well, as JSON or as text.
    Tell(Vec<String>),
    /// What the host sees of the container.
    Outside,
    /// The program has printed its report.
    Ready,
    /// The program has ended.
    Ended,
    /// What a file of the bundle holds now.
    File(&'static str),
}

impl Act {
    /// Create, start, and so on to the end.
    pub(super) fn life() -> Vec<Self> {
        vec![
            Self::create(),
            Self::Outside,
            Self::verb("start"),
            Self::Ended,
            Self::tell("state"),
            Self::verb("delete"),
        ]
    }

    pub(super) fn create() -> Self {
        Self::Make(words("create"))
    }

    pub(super) fn run() -> Self {
        Self::Make(words("run"))
    }

    /// Create and start, up to the program's report.
    pub(super) fn begin() -> Vec<Self> {
        vec![Self::create(), Self::verb("start"), Self::Ready]
    }

    /// Kill and delete.
    pub(super) fn end() -> Vec<Self> {
        vec![Self::verb("kill ID KILL"), Self::Ended, Self::verb("delete")]
    }

    /// Acts while the program stays.
    pub(super) fn during(acts: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut all = Self::begin();
        all.extend(acts);
        all.extend(Self::end());
        all
    }

    pub(super) fn verb(line: &str) -> Self {
        Self::Verb(words(line))
    }

    pub(super) fn tell(line: &str) -> Self {
        Self::Tell(words(line))
    }
}

/// The words of a line; a word of several is written with `~` between them.
fn words(line: &str) -> Vec<String> {
    line.split(' ').map(|word| word.replace('~', " ")).collect()
}
