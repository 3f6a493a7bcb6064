//! Shortens a sequence that shows a fault.

use super::op::Op;

/// The shortest sequence that still fails, found by leaving out parts: halves first, then less.
///
/// Each try is a container of its own, so tries are bounded.
pub(crate) async fn shortest<E>(
    mut ops: Vec<Op>,
    mut error: E,
    mut fails: impl AsyncFnMut(&[Op]) -> Option<E>,
) -> (Vec<Op>, E) {
    const TRIES: usize = 60;
    let mut left = TRIES;
    let mut part = ops.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        while at < ops.len() && left > 0 {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + part).min(ops.len()));
            left -= 1;
            match fails(&fewer).await {
                Some(again) => (ops, error) = (fewer, again),
                None => at += part,
            }
        }
        part = if part == 1 || left == 0 { 0 } else { part.div_ceil(2) };
    }
    (ops, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let ops = [Op::State, Op::Create, Op::Pids, Op::Start, Op::Stats, Op::Kill, Op::State];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fails = async |ops: &[Op]| {
            let has = |op| ops.contains(&op);
            (has(Op::Create) && has(Op::Kill)).then_some("it died")
        };
        let (short, error) = runtime.block_on(shortest(ops.to_vec(), "at first", fails));
        assert_eq!((short, error), (vec![Op::Create, Op::Kill], "it died"));
    }
}
