use crate::cli::Common;

pub fn run(_common: &Common, _check: &crate::cli::Check) -> u8 {
    70
}
