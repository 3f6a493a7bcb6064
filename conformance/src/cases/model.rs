//! Random sequences of calls, held against the model.

use anyhow::{Result, bail};

use crate::case::group;
use crate::lab::Lab;
use crate::model::{Random, Sequence, sequence, shortest, walk};

group! { "model":
    Must short_sequences: "Every call MUST succeed or be refused as the state demands, in short random sequences.", within(120);
    Must long_sequences: "Every call MUST succeed or be refused as the state demands, in long random sequences.", within(120);
}

async fn short_sequences(lab: &Lab) -> Result<()> {
    sequences(lab, 30, 15, 1000).await
}

async fn long_sequences(lab: &Lab) -> Result<()> {
    sequences(lab, 5, 120, 2000).await
}

/// Takes the shim through sequences; a longer search is a matter of `SHIM_CONFORM_SEQUENCES`.
async fn sequences(lab: &Lab, count: u64, length: usize, first_seed: u64) -> Result<()> {
    let asked = std::env::var("SHIM_CONFORM_SEQUENCES").ok().and_then(|text| text.parse().ok());
    for seed in first_seed..first_seed + asked.unwrap_or(count) {
        let ops = sequence(&mut Random::seeded(seed), length);
        let Err(error) = walk(lab, &ops).await else { continue };
        let (ops, error) = shortest(ops, error, async |fewer| walk(lab, fewer).await.err()).await;
        bail!("seed {seed}, shortened to [{}]: {error:#}", Sequence(&ops));
    }
    Ok(())
}
