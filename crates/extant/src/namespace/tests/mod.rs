mod attributes;
mod directory;
mod operations;
mod volume;
