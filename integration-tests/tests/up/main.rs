//! `candleflight up` on real machines. It is killed, runs beside other servers, and gets data folders of any name and age, and files of any
//! kind. `script/test` runs these tests.

mod checkout;
mod disk;
mod folder;
mod inputs;
mod kills;
mod machine;
mod superset;
