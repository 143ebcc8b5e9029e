package redisstore

import (
	"fmt"
	"testing"
	"time"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// TestDuplicatesTakeTurns: a content is known for exactly as long as it is to be
// remembered, whenever it comes while the memories are exchanged, and one that nobody
// adds to goes.
func TestDuplicatesTakeTurns(t *testing.T) {
	t.Parallel()
	for name, remember := range map[string]time.Duration{"briefly": 10 * time.Minute, "long": 72 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w, n := world(t, redistest.Start(t).URL)
			arrive := func(fingerprint []byte) relay.Arrived {
				a := w.Event("c", "")
				a.Fingerprint, a.Remember = fingerprint, remember
				got, err := n.Arrive(t.Context(), a)
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			type content struct {
				fingerprint []byte
				at          time.Time
				id          string
			}
			var contents []content
			for i := range 200 { // over three times as long as they are remembered
				c := content{fmt.Appendf(nil, "\x40%015d%016d", i, 0), w.Now(), ""}
				got := arrive(c.fingerprint)
				if got.Duplicate {
					t.Fatalf("content %d is known at first", i)
				}
				c.id = got.EventID
				for _, old := range contents {
					if w.Now().Sub(old.at) >= remember {
						continue
					}
					if got := arrive(old.fingerprint); !got.Duplicate || got.EventID != old.id {
						t.Fatalf("after %s: %+v, want a duplicate of %s", w.Now().Sub(old.at), got, old.id)
					}
				}
				contents = append(contents, c)
				w.Pass(remember / 64)
			}
			oldest := contents[len(contents)-64]
			w.Pass(time.Millisecond)
			if got := arrive(oldest.fingerprint); got.Duplicate {
				t.Errorf("it is still known after %s", w.Now().Sub(oldest.at))
			}
			w.Pass(2 * remember)
			p := relay.Holder{Merchant: storetest.Merchant, CardID: "c"}.Partition(testPartitions)
			if left := n.rdb.Keys(t.Context(), n.keys.tag(p)+"dup:*").Val(); len(left) != 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}
