//! `candleflight up` on a machine as they are: killed, beside other servers, on folders of any name and age, with files of any kind.
//! `script/test` runs these.

mod checkout;
mod disk;
mod folder;
mod inputs;
mod kills;
mod machine;
mod superset;
