//! Many small programs in one: the name it is called by says which, or the first argument where that is not one of them.
//!
//! `exit CODE` · `say TEXT` · `complain TEXT`, which ends with 1 · `copy`, from standard input to output ·
//! `write FILE TEXT` · `show FILE` · `sleep` and `spin`, which do not end · `flood`, which writes for ever ·
//! `grow`, which takes memory for ever.

use std::io::{self, Write as _};
use std::time::Duration;
use std::{env, fs, hint, process, thread};

const NAMES: [&str; 10] =
    ["exit", "say", "complain", "copy", "write", "show", "sleep", "spin", "flood", "grow"];

fn main() {
    let mut words: Vec<String> = env::args().collect();
    if !words.first().is_some_and(|name| NAMES.contains(&name.as_str())) && !words.is_empty() {
        words.remove(0);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let code = match run(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    };
    process::exit(code);
}

fn run(words: &[&str]) -> io::Result<i32> {
    match words {
        ["exit", code] => return Ok(code.parse().unwrap_or(2)),
        ["say", text] => println!("{text}"),
        ["complain", text] => {
            eprintln!("{text}");
            return Ok(1);
        }
        ["copy"] => drop(io::copy(&mut io::stdin().lock(), &mut io::stdout().lock())?),
        ["write", file, text] => fs::write(file, text)?,
        ["show", file] => io::stdout().write_all(&fs::read(file)?)?,
        ["sleep"] => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        ["spin"] => loop {
            hint::black_box(());
        },
        ["flood"] => loop {
            io::stdout().write_all(&[b'x'; 4096])?;
        },
        ["grow"] => {
            let mut taken = Vec::new();
            loop {
                taken.push(hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        _ => {
            eprintln!("unknown: {words:?}");
            return Ok(2);
        }
    }
    Ok(0)
}
