//! Writes monitoring/alerts.yml: `cargo run -p fivefold-core --example alerts > monitoring/alerts.yml`.

mod rules;

fn main() {
    print!("{}", rules::text());
}
