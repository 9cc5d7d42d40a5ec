use crate::cli::Common;

pub fn run(_common: &Common, _init: &crate::cli::Init) -> u8 {
    70
}
