use crate::cli::Common;

pub fn run(_c: &Common, _a: &str, _b: Option<&str>) -> u8 {
    70
}
