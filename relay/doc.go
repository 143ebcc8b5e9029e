// Package relay is the domain of the approval relay: what an issuer's webhook
// becomes, what may happen to it, and what is owed to whom because of it.
//
// # Vocabulary
//
// An event is one authentic webhook delivery of the issuer, decrypted. A
// challenge is an event that needs the cardholder, tracked until it ends. A
// decision is what the cardholder answered. A delivery is something owed to an
// outside party (a push to one subscription, a forward to one target, a
// confirm or a card lock to the issuer), with its attempts; one that is given
// up is a dead letter. A holder is what challenges are indexed by: a card, or a
// user where the event names no card.
//
// # States of a challenge
//
//	from        input                                   to
//	(none)      arrives in time                         pending
//	(none)      arrives past its expiry                 expired
//	pending     approve, issuer must be told            confirming
//	pending     approve, nobody to tell                 approved
//	pending     reject, method approve, must be told    confirming
//	pending     reject, otherwise                       rejected
//	pending     done (otp, url)                         completed
//	pending     expiry, code or link was revealed       completed
//	pending     expiry, otherwise                       expired
//	pending     superseded, or cancelled by operator    cancelled
//	confirming  issuer took it                          approved or rejected
//	confirming  issuer refused, or time is up           failed
//
// approved, rejected, completed, expired, failed and cancelled are final.
//
// # Invariants
//
//  1. A challenge has at most one decision, and it never changes.
//  2. A final status never changes.
//  3. From ExpiresAt on nothing is decided, revealed or announced.
//  4. Every state is written together with everything that is owed because of
//     it, in one atomic step, compared against the version that was read.
//  5. Nothing is sent from a request: requests write what is owed, workers
//     lease it, send it and settle it. A crash anywhere leads to another
//     attempt, never to a loss: deliveries are made at least once.
//  6. The code, the link and the body of an action-requiring event live in the
//     challenge's sealed part only, which the step that ends the challenge
//     drops.
//  7. Users, cards, challenges and subscriptions of different merchants never
//     meet: a holder is always a merchant and an id.
//  8. An endpoint is active for one user at most: who proved it last. The former
//     one loses it before the next one gets it.
//  9. A challenge that may not ring is listed all the same: limits, mutes and
//     shared notifications (ring.go) are about pushes only.
//
// # Shape
//
// The rules are pure functions of (value, input, now): Interpret, Decide,
// Reveal, Done, Confirmed, Expire, Cancel, Assign, Next, and what makes a challenge
// ring (ring.go). Service is the thin shell around them (load, pure step, swap, owe)
// and Worker runs what is owed (lease, send, settle). Both talk to Store and Queue,
// which redisstore implements, and to the outside through Pusher, Issuer and
// Downstream.
//
// What an operator looks up is read here as well: records of every webhook and
// delivery (lookup.go), the life of one challenge (timeline.go), the figures of all
// nodes (stats.go). It never holds a code or a card number.
//
// Not in here: HTTP, Redis, and the order in which events are forwarded, which
// is not kept.
package relay
