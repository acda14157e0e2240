//! `users`: manages the users file, which lists the users that may connect.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use access::users::Users;
use access::{Role, Secret};
use anyhow::{Context as _, ensure};

/// Action on a users file.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Adds a user, or changes the role or the password of a user. Prompts for the password, or reads it from standard input.
    Set {
        #[command(flatten)]
        user: Named,
        /// Permissions of the user.
        #[arg(long, value_enum, default_value = "reader")]
        role: Role,
        /// Do not set a password. A new user can only use tokens; an existing user keeps the current password.
        #[arg(long)]
        no_password: bool,
    },
    /// Creates a token for a user and prints it. The file contains only a hash of the token.
    Token {
        #[command(flatten)]
        user: Named,
        /// Purpose of the token. A new token replaces the user's earlier one for the same purpose.
        #[arg(long, default_value = "default")]
        purpose: String,
        /// Remove the token instead of creating one.
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
    /// Path of the users file. `set` creates it if it does not exist.
    #[arg(long = "users", env = "CANDLEFLIGHT_USERS", value_name = "FILE")]
    path: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Name of the user.
    name: String,
    #[command(flatten)]
    file: File,
}

/// Reads the file, applies the command and writes the file. Running servers load the change within a second.
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

/// Prompts twice if standard input is a terminal. Otherwise, reads one line.
fn ask_password(name: &str) -> anyhow::Result<Secret> {
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).context("read the password from standard input")?;
        return Ok(Secret::from(line.trim_end_matches(['\n', '\r']).to_owned()));
    }
    let password = rpassword::prompt_password(format!("password of {name}: "))?;
    let again = rpassword::prompt_password("repeat the password: ")?;
    ensure!(password == again, "the two passwords differ");
    Ok(Secret::from(password))
}
