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
//   - Only the standard library is used here ([approvalrelay/crypto/passkey] is by a
//     library). Every derived key is HKDF-SHA256
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
// codes and challenge links, card numbers, the cardholder's attention, the
// merchant's secret key, the relay's keys. In brackets stand the tests; TestThreatModel
// in this package sees that each exists.
//
// The network reads, alters, withholds and repeats traffic, and has captured every
// envelope. TLS, which is in front of the relay, hides it.
//
//   - Forged or altered envelopes: nothing is decoded before its HMAC is verified
//     [TestOpenChecksTheSignatureFirst, FuzzOpen], and the answer tells nothing of the
//     plaintext [TestOpenChecksEveryByteOfThePadding].
//   - Envelopes sent again, encrypted anew, late, early, out of order, under another
//     type or to another merchant: content decides [TestReplayAndConfusion]; nothing
//     stale rings a phone [TestExpiredOnArrival]; under a wrong type a code goes
//     nowhere, and the real event is not blocked [TestQuarantineDoesNotBlockTheReal].
//   - What the relay sends to the issuer, posted back as a webhook
//     [TestReplayAndConfusion].
//   - An old event that says whose a card is: it gives the card back to nobody
//     [TestCapturedEventMakesNobodyOwnerAgain], as old challenges silence no new one
//     [TestStaleOnesDoNotSilence].
//   - Redis filled with what cannot be understood: it is kept once, whatever its type
//     [TestCapturedEnvelopeIsQuarantinedOnce].
//   - Floods: rates are limited before any cryptography [TestWebhookRateLimit],
//     bodies, headers and their time are bounded [TestWebhookTooLarge,
//     TestSlowClients], as is how many are opened at once
//     [TestReceivingIsBounded].
//   - Forged tokens, whatever the algorithm, key, header or encoding, get one answer
//     [TestBadTokens, FuzzAuthorization, FuzzClaims]; a token is read from its header
//     only [TestTokenOnlyInItsHeader]; time does not tell where a check failed
//     [TestTiming].
//   - A page of somebody else in the cardholder's or operator's browser
//     [TestCORS, TestAdminHostAndOrigin, TestSecurityHeaders].
//
// Another cardholder has a valid login and own devices.
//
//   - Foreign and absent challenges get the same answer [TestOthersCannotDecide], and
//     merchants never meet [TestPartitionForModel].
//   - Action tokens carry merchant, user, challenge and subscription under a MAC, and
//     end with challenge and subscription [TestActionTokenScope, TestVerifyToken].
//   - Another's browser cannot be claimed without the code that was pushed to it
//     [TestGuessingTheCode, TestCodeIsGoodForOneSubscription]; who proved it last has
//     it alone, whatever dies on the way [TestActivationThatDiesHalfway,
//     TestFormerOwnerGetsNothingMore].
//
// A thief has the card's number, or the cardholder's open session or unlocked phone.
//
//   - Prompt bombing: few challenges of a card ring [TestPerCardLimit,
//     TestNewestOfManyThatWaitedRing], equal ones share one notification
//     [TestIdenticalChallengesShareANotification], a report silences the card and
//     may lock it [TestNotMe], and the list works with any number
//     [TestFloodedCard].
//   - Approving with the session alone, where auth.step_up asks for a passkey: it
//     signs the challenge's id, amount, currency and payee, the decision and a nonce
//     (PSD2 RTS Art. 5) [TestLinkedCoversWhatIsApproved, TestApprovingWithAStepUp,
//     TestAnAnswerIsGoodForOneApproval]; five failures block approving, and the
//     cardholder hears of it [TestFiveFailuresBlockApproving]; the session does not
//     suffice to add a passkey [TestPasskeysNeedARecentLogin], and all devices hear
//     of a new one [TestEnrolment]. What was signed can be checked later, also
//     against a changed record [TestVerify].
//   - A session that was stolen for a moment: tokens end, but a device that was
//     registered with it outlasts them. Remove the devices, too, not only the token.
//     On a phone whose lock screen lets buttons be pressed, auth.step_up: passkey or
//     push.action_token: false keeps a payment from being approved there.
//   - Approving something else than was shown: an approval that echoes what was shown
//     must fit [TestShown].
//
// A push endpoint is a URL that anybody may choose, who thereby gets what is pushed.
//
//   - Requests into our own network: hosts are allowed by name, addresses at dial
//     [TestParseEndpoint, TestDialerRefusesPrivateAddresses,
//     TestNameThatResolvesToAPrivateAddress, TestRedirectsAreNotFollowed,
//     FuzzSubscription].
//   - Pushes aimed at somebody else: before its activation an endpoint gets nothing
//     but its code, and few of these [TestPushesToOneEndpointAreFew,
//     TestPushesOfOneUserAreFew, TestNewKeysGetNothingBeforeTheyAreProved].
//   - Reading what is pushed: the body is encrypted to the browser (RFC 8291), holds
//     no card number, and no code unless push.include_otp says so
//     [TestNothingSecretIsInClear, TestCodeIsPushedOnlyIfWanted].
//
// A compromised downstream receives forwarded events.
//
//   - Codes and links are removed unless its target asks for them, action-requiring
//     types must be named, card numbers are keyed tokens [TestOTPOnlyWhereItBelongs,
//     TestCardIDIsNeverACardNumber, FuzzArrival].
//   - Deliveries are signed with secrets of that target alone [TestForwardRequest]; a
//     slow, dead or lying one delays nobody and stores nothing secret
//     [TestSlowTargetDelaysNobody, TestNoSecretIsRecorded].
//
// A reader of Redis has a dump, a replica, a backup or the append-only file.
//
//   - Bodies, codes, links, push keys, endpoints and passkeys are sealed [TestDumpHoldsNoSecret].
//     Fingerprints and card tokens are keyed: without the key the few billion possible
//     card numbers cannot be tried [TestRootDerivesKnownValues].
//   - Sealed values are bound to the id of their record, so that a writer cannot move
//     one to another [TestRecordsAreBoundToTheirIDs]. Who can write can still delete
//     records, restore older ones, and change what is not sealed, such as an owner or
//     an amount. A passkey's proof does not fit what was changed after the approval
//     [TestVerify], and that one is needed is not only the record's word
//     [TestStepUpIsAskedForAtTheDecision].
//   - Keys are rotated with the service running [TestReseal, TestRotation].
//
// A reader of logs, metrics, traces and the operator's pages finds no secret: types
// that hold one redact themselves and errors hold none [TestNothingLeaks,
// TestSecretsRedactThemselves, TestLogsHoldNoRequestData]; whoever writes to them
// from outside writes no line of his own [TestRequestID, TestLogsHoldNoRequestData].
//
// Out of scope: a compromised relay host or process memory, a compromised issuer,
// identity provider or merchant secret, a malicious operator, malware on the
// cardholder's own device, denial of service by volume, traffic analysis (sealed
// values show their length), quantum adversaries. A network that can withhold the
// issuer's webhook of a payment without a code can post it first under another type,
// and the real one is a duplicate then: it could as well have withheld it for good.
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
// in 50 days, at 10 000 in 5.
//
// To rotate without downtime, restart the nodes with [old, new], then with [new,
// old], then with [new], when the log has said twice, an hour apart, that nothing
// needs the others: after the second step one node at a time seals everything again
// under the first key. Twice, because a pass may miss records that move between the
// masters of a cluster, and a failover may bring back what was sealed before. Keep a
// removed key for 30 days, the life of dead letters: putting it back mends whatever
// cannot be opened.
package crypto
