use crate::cli::Common;

pub fn run(_common: &Common, _app: &str, _limit: usize) -> u8 {
    70
}
