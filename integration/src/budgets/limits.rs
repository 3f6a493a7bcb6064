//! Every budget and its limit: a table. How the values came about is told in `docs/budgets.md`.

/// One thing that has a limit.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Its group and its name.
    pub name: &'static str,
    /// The most that is allowed.
    pub limit: u64,
    /// In what it is counted.
    pub unit: &'static str,
}

const fn kib(name: &'static str, limit: u64) -> Budget {
    Budget { name, limit, unit: "KiB" }
}

const fn count(name: &'static str, limit: u64) -> Budget {
    Budget { name, limit, unit: "" }
}

const fn calls(name: &'static str, limit: u64) -> Budget {
    Budget { name, limit, unit: "calls" }
}

/// The file that users install.
pub const SIZE: Budget = kib("memory::size_of_the_binary", 4096);
/// What one more shim costs, its stem included.
pub const DIRTY: Budget = kib("memory::private_dirty", 480);
/// The same, and what the two share, of which there should be nothing.
pub const DIRTY_BOTH: Budget = kib("memory::dirty_with_what_both_share", 480);
/// What the first shim costs: nobody else shares its program's pages.
pub const PSS: Budget = kib("memory::proportional_set", 3712);
/// What one more container in a shim costs.
pub const DIRTY_MORE: Budget = kib("memory::private_dirty_a_container", 100);
/// The same where all containers of a namespace share one.
pub const DIRTY_MANY: Budget = kib("memory::private_dirty_one_of_many", 100);
/// One thread: one stack, and no lock is ever contended.
pub const THREADS_SHIM: Budget = count("memory::threads_of_the_shim", 1);
/// The stem must never have another.
pub const THREADS_STEM: Budget = count("memory::threads_of_the_stem", 1);
/// With one container.
pub const FILES: Budget = count("memory::descriptors_of_the_shim", 20);
/// It keeps no file between two requests.
pub const FILES_STEM: Budget = count("memory::descriptors_of_the_stem", 6);
/// What one more container keeps open: a connection, its first process twice, and the watch over its
/// memory.
pub const FILES_MORE: Budget = count("memory::descriptors_a_container", 5);

/// `start` itself, the serving process, the stem, and the container's first process, which may come
/// before it is asked for.
pub const MADE_UP_TO_CREATE: Budget = count("processes::action_start_and_create", 4);
/// `start` itself finds the shim of its group.
pub const MADE_BY_JOINING_START: Budget = count("processes::action_start_in_a_group", 1);
/// That process becomes the program.
pub const MADE_BY_START: Budget = count("processes::start", 0);
/// The process that enters the namespaces and becomes the program.
pub const MADE_BY_EXEC: Budget = count("processes::exec_and_start", 1);
/// The container's first process, and nothing else but `start`: where a namespace shares a shim.
pub const MADE_BY_ONE_OF_MANY: Budget = count("processes::one_of_many", 2);
/// Nothing.
pub const MADE_BY_DELETE_OF_EXEC: Budget = count("processes::delete_of_the_exec", 0);
/// A signal.
pub const MADE_BY_KILL: Budget = count("processes::kill", 0);
/// Nothing: cgroups and mounts go by calls.
pub const MADE_BY_DELETE: Budget = count("processes::delete", 0);
/// `delete` itself.
pub const MADE_BY_ACTION_DELETE: Budget = count("processes::action_delete", 1);
/// All of the above, with one exec.
pub const MADE_BY_A_LIFE: Budget = count("processes::a_life", 6);

/// With what the new process does until it waits for its start: more than half of it.
pub const CALLS_CREATE: Budget = calls("calls::create", 485);
/// By the shim; the first process runs on by itself.
pub const CALLS_START: Budget = calls("calls::start", 21);
/// An exec from Exec to Delete, the program of one call included.
pub const CALLS_EXEC: Budget = calls("calls::exec_start_delete", 240);
/// Kill, the exit, its event.
pub const CALLS_KILL: Budget = calls("calls::kill", 29);
/// Cgroups, mounts, and the event.
pub const CALLS_DELETE: Budget = calls("calls::delete", 48);

/// Those of an idle shim.
pub const MEMORY: [Budget; 11] = [
    SIZE,
    DIRTY,
    DIRTY_BOTH,
    PSS,
    THREADS_SHIM,
    THREADS_STEM,
    FILES,
    FILES_STEM,
    DIRTY_MORE,
    DIRTY_MANY,
    FILES_MORE,
];

/// Those that are counted in processes.
pub const PROCESSES: [Budget; 10] = [
    MADE_UP_TO_CREATE,
    MADE_BY_START,
    MADE_BY_EXEC,
    MADE_BY_DELETE_OF_EXEC,
    MADE_BY_KILL,
    MADE_BY_DELETE,
    MADE_BY_ACTION_DELETE,
    MADE_BY_A_LIFE,
    MADE_BY_JOINING_START,
    MADE_BY_ONE_OF_MANY,
];

/// Those that are counted in system calls.
pub const CALLS: [Budget; 5] = [CALLS_CREATE, CALLS_START, CALLS_EXEC, CALLS_KILL, CALLS_DELETE];
