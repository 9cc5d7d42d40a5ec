use crate::cli::Common;

pub fn run(_common: &Common, _app: &str, _run: Option<&str>, _follow: bool) -> u8 {
    70
}
