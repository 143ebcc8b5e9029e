// Package configs reads the relay's YAML configuration.
//
// Guarantees:
//   - What Load returns is complete: every default is filled in, every
//     ${NAME} replaced, every *_file read, and every rule of validate*.go holds.
//   - Otherwise it returns Faults: all that is wrong at once, each with file,
//     line, key, what is wrong and what is allowed. Unknown keys, duplicate
//     keys, wrong types and contradictions are faults.
//   - Secrets have the type Secret, which redacts itself wherever it is
//     printed. A Fault never quotes a value of the file, of the environment or
//     of a *_file, so a secret put under the wrong key does not leak either.
//   - Text that comes from the environment or from a file is never read as YAML.
//   - Reading is linear in the size of the file: anchors, aliases and merge
//     keys are refused.
//
// Non-goals: it does not connect to anything (the check command does), does
// not watch the file, and knows none of the other packages; cmd/relay maps
// Config to what they need.
package configs
