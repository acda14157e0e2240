//! `users`: who may connect, in a users file.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use access::users::Users;
use access::{Role, Secret};
use anyhow::{Context as _, ensure};

/// What to do to a users file.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Adds a user, or gives a user another role or password, which is asked for, or read from standard input.
    Set {
        #[command(flatten)]
        user: Named,
        /// What the user may do.
        #[arg(long, value_enum, default_value = "reader")]
        role: Role,
        /// Ask for no password: the user has tokens only, or the password of before.
        #[arg(long)]
        no_password: bool,
    },
    /// Makes a token for a user, and prints it: the file holds only its hash.
    Token {
        #[command(flatten)]
        user: Named,
        /// What the token is for; one of before for the same is replaced.
        #[arg(long, default_value = "default")]
        purpose: String,
        /// Remove the token instead.
        #[arg(long)]
        remove: bool,
    },
    /// Removes a user.
    Remove {
        #[command(flatten)]
        user: Named,
    },
    /// Lists the users.
    List {
        #[command(flatten)]
        file: File,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct File {
    /// The users file; `set` makes it.
    #[arg(long = "users", env = "CANDLEFLIGHT_USERS", value_name = "FILE")]
    path: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The user's name.
    name: String,
    #[command(flatten)]
    file: File,
}

/// Reads the file, does what is asked, and writes it. Servers that use it notice within a second.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Set { user, role, no_password } => {
            let path = &user.file.path;
            let mut users = if path.try_exists()? { Users::read(path)? } else { Users::default() };
            let password = (!no_password).then(|| ask_password(&user.name)).transpose()?;
            users.set(&user.name, role, password.as_ref())?;
            users.write(path)?;
        }
        Command::Token { user, purpose, remove: true } => {
            change(&user.file.path, |users| users.remove_token(&user.name, &purpose))?;
        }
        Command::Token { user, purpose, remove: false } => {
            let token = change(&user.file.path, |users| users.add_token(&user.name, &purpose))?;
            writeln!(io::stdout(), "{token}")?;
        }
        Command::Remove { user } => change(&user.file.path, |users| users.remove(&user.name))?,
        Command::List { file } => list(&Users::read(&file.path)?)?,
    }
    Ok(())
}

fn change<T>(path: &Path, change: impl FnOnce(&mut Users) -> Result<T, access::Error>) -> anyhow::Result<T> {
    let mut users = Users::read(path)?;
    let changed = change(&mut users)?;
    users.write(path)?;
    Ok(changed)
}

fn list(users: &Users) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for (name, user) in users.iter() {
        let password = if user.password.is_some() { "password" } else { "no password" };
        let tokens: Vec<&str> = user.tokens.keys().map(String::as_str).collect();
        let tokens =
            if tokens.is_empty() { String::new() } else { format!(", tokens: {}", tokens.join(", ")) };
        writeln!(out, "{name}\t{}\t{password}{tokens}", user.role)?;
    }
    Ok(())
}

/// Asks twice at a terminal, and reads one line elsewhere.
fn ask_password(name: &str) -> anyhow::Result<Secret> {
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).context("read the password from standard input")?;
        return Ok(Secret::from(line.trim_end_matches(['\n', '\r']).to_owned()));
    }
    let password = rpassword::prompt_password(format!("password of {name}: "))?;
    let again = rpassword::prompt_password("once more: ")?;
    ensure!(password == again, "the two passwords differ");
    Ok(Secret::from(password))
}
