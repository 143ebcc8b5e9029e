package redisstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// threeDS is a body as issuers send it when the cardholder has to approve.
const threeDS = `{"eventId":"3f1c8a52-9a0e-4b5e-8f6d-1d2c3b4a5968","uid":"1048576","userBankcardId":"%s",` +
	`"cardNo":"532959******4242","verificationType":"OUT_OF_BAND","authId":"8a7b6c5d-4e3f-4a2b-9c1d-0e9f8a7b6c5d",` +
	`"transactionAmount":"100.20","transactionCurrency":"USD","merchantName":"Sephora Digital SAS",` +
	`"merchantCountry":"FR","transactionTime":1767323045000,"expirationTime":1767323345000,` +
	`"acsTransId":"b1946ac9-2492-4d23-a7f1-6b3f5c9d2e10","deviceChannel":"BROWSER"}`

// realistic makes a challenge as the service would.
func realistic(w *storetest.World, card string) relay.Arrival {
	a := w.Challenge(card, "", "8a7b6c5d-4e3f-4a2b-9c1d-0e9f8a7b6c5d")
	a.Challenge.Payee = "Sephora Digital SAS"
	a.Challenge.Secret.Body = fmt.Appendf(nil, threeDS, card)
	return a
}

// maxBytes is what a pending challenge may cost in Redis, all included.
const maxBytes = 2048

func TestMemoryOfAPendingChallenge(t *testing.T) {
	server := redistest.Start(t)
	w, n := world(t, server.URL, func(o *Options) { o.Prefix, o.Partitions = "relay", 16 })
	const many = 10_000
	card := func(i int) string { return strconv.Itoa(700_000_000 + i) }
	for i := range many { // so that the owners, which stay, are not counted
		a := w.Event(card(i), strconv.Itoa(1_000_000+i))
		a.LearnAt, a.Fingerprint = w.Now(), nil
		w.Arrive(n, a)
	}
	before, kindsBefore := n.usedMemory(t), n.memoryByKind(t)
	for i := range many {
		w.Advance(time.Millisecond)
		w.Arrive(n, realistic(w, card(i)))
	}
	each := (n.usedMemory(t) - before) / many
	t.Logf("%d bytes per pending challenge; its body has %d", each, len(fmt.Sprintf(threeDS, card(0))))
	kinds, sum := n.memoryByKind(t), 0
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		if d := (kinds[k] - kindsBefore[k]) / many; d != 0 {
			t.Logf("%6d %s", d, k)
			sum += d
		}
	}
	t.Logf("%6d tables of keys and expiries", each-sum)
	if each > maxBytes {
		t.Errorf("a pending challenge takes %d bytes, want at most %d", each, maxBytes)
	}
}

func (n node) usedMemory(t testing.TB) int {
	t.Helper()
	info, err := n.rdb.Info(t.Context(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "used_memory:")
	digits, _, _ := strings.Cut(rest, "\r\n")
	used, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// memoryByKind sums MEMORY USAGE over keys of a kind, such as "chl_" or "live:".
func (n node) memoryByKind(t testing.TB) map[string]int {
	t.Helper()
	ctx := context.Background()
	names, sum := n.names(t), map[string]int{}
	for part := range slices.Chunk(names, 1000) {
		pipe := n.rdb.Pipeline()
		for _, name := range part {
			pipe.MemoryUsage(ctx, name, 0)
		}
		cmds, err := pipe.Exec(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range cmds {
			_, kind, _ := strings.Cut(part[i], "}:")
			if end := strings.IndexAny(kind, "_:"); end >= 0 {
				kind = kind[:end+1]
			}
			sum[kind] += int(c.(*redis.IntCmd).Val())
		}
	}
	return sum
}
