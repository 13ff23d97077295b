# Short names for the commands that everybody needs: https://just.systems

# List the commands.
default:
    @just --list

# Start a shop with a demo catalogue on http://127.0.0.1:8080, without any server.
demo *arguments:
    cargo run --release --locked -- serve --demo {{ arguments }}

# Prove the whole project, or only the tests with a word in their names: just test settlement
test word='':
    tests/run {{ word }}

# Format and lint, without any test.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

# Measure everything, or only what has a word in its name: just bench settle
bench *words:
    cargo bench --profile dist --locked -- {{ words }}

# Follow every link of the documentation and run its runnable blocks.
docs:
    cargo test --locked --all-features --test it docs::
