// Package sim plays the parties outside the relay: the card issuer's platform
// (Issuer), browsers with their push service (PushService, Device) and a
// team's own service (Downstream). The demo, the load command and the
// whole-process tests run against it.
//
// # Guarantees
//
//   - Every message that comes in is verified: HMAC, padding and JSON at the
//     issuer; VAPID (RFC 8292), headers (RFC 8030) and encryption (RFC 8188,
//     RFC 8291) at the push service; Standard Webhooks signatures downstream.
//     What does not hold is recorded with its Fault and refused, whatever the
//     script says.
//   - The verifying code is this package's own, on the standard library alone,
//     so an error in the relay's cryptography is not repeated here. A test holds
//     the import rule.
//   - A message is recorded before it is answered: whoever has seen the answer
//     finds the record.
//   - All types are safe for concurrent use, bodies are bounded, and records are
//     too once Keep is set.
//
// # Non-goals
//
// No transport: the three are http.Handlers for whatever listener the caller
// has. No persistence, and no protection of their own memory: keys and codes in
// here are those of a simulation.
package sim
