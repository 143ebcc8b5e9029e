package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Policy names what in Redis' set-up would lose what was acknowledged; none is
// good. Managed services may hide INFO's fields, then nothing is said about them.
func (s *Store) Policy(ctx context.Context) ([]string, error) {
	info, err := s.rdb.Info(ctx, "memory", "persistence", "replication").Result()
	if err != nil {
		return nil, s.away(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(info) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[k] = v
		}
	}
	var faults []string
	if p := fields["maxmemory_policy"]; p != "" && p != "noeviction" {
		faults = append(faults, "maxmemory-policy is "+p+", it must be noeviction, or Redis throws away challenges when memory is short")
	}
	if fields["aof_enabled"] == "0" {
		faults = append(faults, "appendonly is no, it must be yes, or a restart of Redis loses what came after the last snapshot")
	}
	if n, err := strconv.Atoi(fields["connected_slaves"]); err == nil && n < s.WaitReplicas && fields["role"] == "master" {
		faults = append(faults, fmt.Sprintf("redis.wait_replicas is %d, but only %d replicas are connected, so that nothing is acknowledged", s.WaitReplicas, n))
	}
	return faults, nil
}
