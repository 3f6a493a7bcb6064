//! One writer at a time, readers that never wait.

use tokio::sync::{Mutex, MutexGuard, watch};

/// The rules of a state: what may be asked of it.
pub(crate) trait Rules: Clone {
    /// What a client may ask.
    type Op: Copy;

    /// Why it is not done.
    type Refused;

    /// Says why `op` is not legal now, if it isn't.
    fn check(&self, op: Self::Op) -> Result<(), Self::Refused>;
}

/// A state with one writer at a time and any number of readers that never wait.
#[derive(Debug)]
pub(crate) struct StateCell<S> {
    turn: Mutex<()>,
    state: watch::Sender<S>,
}

/// The turn, taken for one operation. Dropped without a commit it leaves the state as it was.
#[derive(Debug)]
pub(crate) struct Step<'a, S> {
    cell: &'a StateCell<S>,
    _turn: MutexGuard<'a, ()>,
}

impl<S: Rules> StateCell<S> {
    /// A cell in its first state.
    pub(crate) fn new(state: S) -> Self {
        Self { turn: Mutex::new(()), state: watch::Sender::new(state) }
    }

    /// Takes the turn for `op`, or says why not.
    pub(crate) async fn begin(&self, op: S::Op) -> Result<Step<'_, S>, S::Refused> {
        let step = self.turn().await;
        self.state.borrow().check(op)?;
        Ok(step)
    }

    /// Takes the turn for news from the kernel, which no rule can refuse.
    pub(crate) async fn turn(&self) -> Step<'_, S> {
        Step { cell: self, _turn: self.turn.lock().await }
    }

    /// The state as it is, without waiting for anybody.
    pub(crate) fn current(&self) -> S {
        self.state.borrow().clone()
    }

    /// Waits for a state with something to tell; this is all that `Wait` is.
    pub(crate) async fn until<T>(&self, told: impl Fn(&S) -> Option<T>) -> T {
        let mut reader = self.state.subscribe();
        let state = reader.wait_for(|state| told(state).is_some()).await;
        let state = state.expect("the cell holds the sender for as long as it is borrowed");
        told(&state).expect("just found to tell")
    }
}

impl<S: Rules> Step<'_, S> {
    /// Ends the operation with a new state.
    pub(crate) fn commit(self, next: S) {
        self.cell.state.send_replace(next);
    }
}
