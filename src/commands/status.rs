use crate::cli::Common;

pub fn run(_common: &Common, _apps: &[String]) -> u8 {
    70
}
