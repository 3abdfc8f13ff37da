// A module of its own, so that the package does not contain it. scripts/clients copies
// main.go into an empty project.
module conformance

go 1.26.0
