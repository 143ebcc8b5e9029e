package redisstore

import (
	"strings"
	"testing"

	"approvalrelay/relay/storetest/redistest"
)

func TestPolicyNamesWhatWouldLoseSomething(t *testing.T) {
	t.Parallel()
	good := redistest.Start(t).URL
	bad := redistest.Start(t, "--appendonly", "no", "--maxmemory-policy", "allkeys-lru").URL
	for name, c := range map[string]struct {
		url      string
		replicas int
		want     []string
	}{
		"as it should be": {good, 0, nil},
		"no replica":      {good, 1, []string{"redis.wait_replicas is 1, but only 0"}},
		"careless":        {bad, 0, []string{"maxmemory-policy is allkeys-lru", "appendonly is no"}},
	} {
		_, n := world(t, c.url, func(o *Options) { o.WaitReplicas = c.replicas })
		got, err := n.Policy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ok := len(got) == len(c.want)
		for i := range min(len(got), len(c.want)) {
			ok = ok && strings.HasPrefix(got[i], c.want[i])
		}
		if !ok {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
