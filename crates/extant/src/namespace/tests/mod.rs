mod attributes;
mod directory;
mod operations;
mod rules;
mod volume;
