//! The caller: speaks HTTP for the supervisor, as the fetch user.

use anyhow::Result;

pub fn run() -> Result<()> {
    anyhow::bail!("not written yet")
}
