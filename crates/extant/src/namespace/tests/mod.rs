mod attributes;
mod directory;
mod inline;
mod operations;
mod rules;
mod volume;
