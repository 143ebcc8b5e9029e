// Package crypto holds every cryptographic step of the relay: the issuer's
// envelope ([Keyring]), records at rest ([Vault]), and what is derived from the
// relay's own root key ([Root]): fingerprints, card tokens, activation codes and
// action tokens.
//
// # Guarantees
//
//   - Nothing is decrypted, decoded or parsed before its MAC is verified, and every
//     comparison with a secret value takes constant time.
//   - A refusal is one of few sentinels ([ErrSignature], [ErrMalformed],
//     [ErrSealed], [ErrToken]); none tells which check failed beyond its name, and
//     no error holds key material, plaintext or input.
//   - [Secret], [Keyring], [Vault] and [Root] print, marshal and log as
//     "[redacted]". Their keys stand behind pointers, so that fmt, which does not
//     call methods of unexported fields, finds an address at most.
//   - All types are immutable and safe for concurrent use.
//   - Only the standard library is used. Every derived key is HKDF-SHA256
//     (RFC 5869) under a label of its own, so one 32-byte key given to both
//     NewVault and NewRoot still means independent keys.
//
// # Non-goals
//
// Key storage, the wiping of memory, replay and duplicate detection (the relay
// decides these on decrypted content), TLS, user authentication, and Web Push
// encryption (RFC 8291, RFC 8292).
//
// # Threat model
//
// Assets: the decision (nobody but the cardholder approves a payment), one-time
// codes and challenge links, card numbers, the merchant's secret key, the
// relay's keys.
//
//   - The network: reads, alters, withholds and repeats traffic. TLS hides it;
//     without a merchant secret no envelope passes Open, and one changed byte of
//     the payload is refused. Repeats pass and are caught by content (below).
//   - Another cardholder: has a valid login and own devices. Action tokens carry
//     merchant, user, challenge and subscription under a MAC and expire with the
//     challenge; whoever verifies one compares all four with the record.
//     Activation codes prove that an endpoint is the caller's before it receives
//     anything. Foreign and absent challenges get the same answer.
//   - A malicious push endpoint: a URL chosen by a user, who thereby gets what is
//     pushed to it. It is sent nothing but its activation code before activation,
//     its body is encrypted to the browser's key (RFC 8291), it holds no code and
//     no card number by default, and its token is good for one challenge from one
//     subscription, and revoked with that subscription.
//   - A compromised downstream: receives forwarded events. Codes and links are
//     removed unless its target asks for them, action-requiring types must be
//     named, card numbers are keyed tokens. Deliveries are signed with secrets of
//     that target alone, so it cannot speak as the issuer or as the relay to others.
//   - A reader of Redis (a dump, a replica, a backup): bodies and codes are sealed
//     by Vault. Fingerprints and card tokens are keyed: without the key the few
//     billion possible card numbers cannot be tried. Sealed values are bound to
//     the id of their record, so a writer cannot move one to another record; he can
//     still delete records, restore older ones, and change what is not sealed.
//   - A reader of logs: finds no secret, since types that hold one redact
//     themselves and errors hold none.
//
// Out of scope: a compromised relay host or process memory, a compromised issuer
// or merchant secret, a malicious operator, the cardholder's own compromised
// device, denial of service by volume (the ingress limits rates before any
// cryptography), traffic analysis (sealed values show their length), quantum
// adversaries.
//
// # Known weaknesses of the issuer's envelope
//
// The format is the issuer's and cannot be changed here:
//
//   - No event id: a retry may be encrypted anew under another IV. Two deliveries
//     are the same when their plaintext is the same, never because of the bytes
//     on the wire.
//   - No time: a captured envelope verifies for as long as its secret is in use.
//     Freshness must come from the content.
//   - The MAC does not cover type: an envelope can be sent again as another type.
//     The plaintext must be checked against the type it arrives under.
//   - Both directions use the same key without any direction mark: what the relay
//     seals for the issuer's API would open at the webhook too.
//   - One key serves AES-CBC and HMAC. No attack on that pair is known, but a leak
//     of one is a leak of both; there is no forward secrecy.
//   - ErrSignature and ErrMalformed can be told apart, as the contract wants. Only a
//     holder of the secret gets past the MAC, so this is no padding oracle (RFC 7366
//     gives the reason for this order).
//
// # Limit of the storage keys
//
// Vault draws a random 96-bit nonce for each record. NIST SP 800-38D, section 8.3,
// allows at most 2^32 records under one key, where the chance of a repeated
// nonce, which would break both secrecy and integrity, reaches about 2^-33.
// Rotate well before: at 1000 sealed records per second 2^32 are reached
// in 50 days, at 10 000 in 5. To rotate, put a new key first and keep the old
// ones until the last record sealed under them is gone.
package crypto
