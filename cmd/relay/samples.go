package main

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"time"
)

// samplePayload is what an issuer could send under a type: each call is another
// purchase, so that none is a duplicate.
func samplePayload(typ string, now time.Time) map[string]any {
	ref := digits(7)
	base := map[string]any{"card_id": 67890, "user_id": demoUser, "occur_time": now.UnixMilli()}
	add := func(more map[string]any) map[string]any {
		for k, v := range more {
			base[k] = v
		}
		return base
	}
	switch typ {
	case "CARD_3DS":
		return add(map[string]any{
			"auth_id": ref, "merchant_name": "Sephora Digital", "merchant_country_code": "250", "card_number": "4242********4242",
			"transaction_amount": fmt.Sprintf("%s.%s", digits(3), digits(2)), "transaction_currency": "978",
		})
	case "CARD_VERIFICATION":
		return add(map[string]any{"activationCode": digits(6), "card_number": "4242********4242", "walletProvider": "googlePay", "transaction_id": ref})
	case "USER_CREATE_RESULT":
		return map[string]any{"user_id": demoUser, "status": "APPROVED", "message": "sample " + ref}
	case "CARD_ASSIGN_RESULT":
		return add(map[string]any{"status": "SUCCESS"})
	case "CARD_RECHARGE_RESULT":
		return add(map[string]any{"transaction_id": ref, "receive_amount": "250.00", "currency": "USD", "status": "SUCCESS"})
	}
	return add(map[string]any{"transaction_id": ref, "status": "SUCCESS"})
}

// sampleOTP is a 3DS challenge that is answered by reading its code.
func sampleOTP(now time.Time) map[string]any {
	return map[string]any{
		"card_id": 67890, "user_id": demoUser, "occur_time": now.UnixMilli(), "reference_code": digits(7), "otp": digits(6),
		"amount": 50, "currency": "USD", "detail": "NameSilo", "card_number": "4242********4242",
	}
}

// demoUser is the cardholder of the samples.
const demoUser = "12345"

// digits are n random ones, the first not 0.
func digits(n int) string {
	out := make([]byte, n)
	for i := range out {
		limit, base := int64(10), byte('0')
		if i == 0 {
			limit, base = 9, '1'
		}
		d, err := rand.Int(rand.Reader, big.NewInt(limit))
		if err != nil {
			panic(err) // crypto/rand never fails on the systems that Go supports
		}
		out[i] = base + byte(d.Int64())
	}
	return string(out)
}
