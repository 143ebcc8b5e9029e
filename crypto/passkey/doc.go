// Package passkey registers passkeys and checks what they sign (WebAuthn Level 3,
// https://www.w3.org/TR/webauthn-3/), by github.com/go-webauthn/webauthn.
//
// # Guarantees
//
//   - A registration and an assertion are good only for the challenge that they are
//     checked against, made under an origin of the [Party], with the user verified
//     (PIN or biometrics), and never inside a frame of another origin.
//   - An assertion is good only under a key that is among the credentials given, and
//     never under one whose counter went backwards (a cloned authenticator).
//   - There is one error for each of the two ceremonies, [ErrRegistration] and
//     [ErrAssertion]; what it wraps is for the log, and holds no key and no signature.
//   - A [Proof] can be checked again at any time without the party that made it.
//
// # Non-goals
//
// Where challenges come from and that each is used once, where credentials are
// kept, attestation (what make an authenticator is of), and signing in: a passkey
// here confirms what somebody who is signed in wants to do.
package passkey
