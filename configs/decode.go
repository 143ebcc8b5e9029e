package configs

import (
	"errors"
	"io/fs"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"go.yaml.in/yaml/v3"
)

// decoder fills the Config from YAML nodes and notes every fault and every
// key's line. It walks nodes itself, instead of letting yaml decode into the
// structs, to name keys and lines in all faults at once, and to replace
// ${NAME} after parsing but before the text becomes a typed value.
type decoder struct {
	name      string
	lookupEnv func(string) (string, bool)
	readFile  func(string) ([]byte, error)
	lines     map[string]int
	faults    Faults
}

func (d *decoder) faultAt(line int, key, problem, allowed string) {
	d.faults = append(d.faults, Fault{File: d.name, Line: line, Key: key, Problem: problem + "; allowed: " + allowed})
}

// fault notes a fault at the line of the key, or of the nearest section of it
// that is in the file.
func (d *decoder) fault(key, problem, allowed string) {
	for at := key; at != ""; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
		if line, ok := d.lines[at]; ok {
			d.faultAt(line, key, problem, allowed)
			return
		}
	}
	d.faultAt(1, key, problem, allowed)
}

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
)

// decode sets v from n; on a fault v keeps what it has.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, key string) {
	if !d.plain(n, key) {
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), key)
	case v.Kind() == reflect.Interface:
		if value := d.json(n, key); value != nil {
			v.Set(reflect.ValueOf(value))
		}
	case v.Kind() == reflect.Map:
		d.mapping(n, v, key)
	case v.Kind() == reflect.Slice:
		d.list(n, v, key)
	case v.Kind() == reflect.Struct && v.Type() != secretType && v.Type() != prefixType:
		d.structure(n, v, key)
	default:
		d.scalar(n, v, key)
	}
}

// plain refuses what makes a node mean something else than its text: anchors
// and aliases (a few lines can stand for billions) and tags. It names neither:
// an unquoted secret that starts with & or ! looks like one.
func (d *decoder) plain(n *yaml.Node, key string) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.faultAt(n.Line, key, "anchors (&name) and aliases (*name) are not supported", "the value itself; quote a text that starts with & or *")
	case n.Style&yaml.TaggedStyle != 0:
		d.faultAt(n.Line, key, "tags (!name) are not supported", "the value itself; quote a text that starts with !")
	case n.ShortTag() == "!!merge":
		d.faultAt(n.Line, key, "merge keys (<<) are not supported", "the keys themselves")
	default:
		return true
	}
	return false
}

// pairs calls each for the keys of a mapping, first come first, duplicates
// and keys that are not text left out as faults.
func (d *decoder) pairs(n *yaml.Node, key string, each func(name, path string, value *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		path := join(key, name.Value)
		if !d.plain(name, key) {
			continue
		}
		if name.Kind != yaml.ScalarNode || name.ShortTag() != "!!str" {
			d.faultAt(name.Line, key, "a key that is not text", "text; quote numbers and words such as true")
			continue
		}
		if first, ok := seen[name.Value]; ok {
			d.faultAt(name.Line, path, "given twice, first in line "+strconv.Itoa(first), "one of them")
			continue
		}
		seen[name.Value] = name.Line
		d.lines[path] = name.Line
		each(name.Value, path, n.Content[i+1])
	}
}

var likeAKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

func join(key, name string) string {
	if !likeAKey.MatchString(name) {
		name = "?"
	}
	if key == "" {
		return name
	}
	return key + "." + name
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, key string) {
	if s, ok := v.Addr().Interface().(interface{ setDefaults() }); ok {
		s.setDefaults()
	}
	allowed := keysOf(v.Type())
	if n.Kind != yaml.MappingNode {
		d.fault(key, "not a section", "a mapping with the keys "+strings.Join(allowed, ", "))
		return
	}
	given := map[string]*yaml.Node{}
	d.pairs(n, key, func(name, path string, value *yaml.Node) {
		if !slices.Contains(allowed, name) {
			d.unknown(name, key, path, allowed)
			return
		}
		given[name] = value
	})
	for i := range v.NumField() {
		name, file := tags(v.Type().Field(i))
		if value := given[name]; value != nil {
			d.decode(value, v.Field(i), join(key, name))
		}
		if value := given[file]; value != nil {
			secret := d.secretFile(value, join(key, file))
			switch {
			case !secret.IsSet():
			case given[name] != nil && v.Field(i).Interface().(Secret).IsSet():
				d.fault(join(key, file), "given beside "+name, "one of the two")
			default:
				v.Field(i).Set(reflect.ValueOf(secret))
			}
		}
	}
}

func (d *decoder) unknown(name, key, path string, allowed []string) {
	problem := "unknown key"
	for _, known := range allowed {
		if squash(known) == squash(name) {
			problem += ", did you mean " + known + "?"
		}
	}
	if slices.Contains(allowed, "file") {
		// Beside value and file an unknown key may well be the secret itself.
		d.faultAt(d.lines[path], key, problem, strings.Join(allowed, ", "))
		return
	}
	d.fault(path, problem, strings.Join(allowed, ", "))
}

// squash makes publicUrl, public-url and public_url the same.
func squash(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
}

func tags(f reflect.StructField) (name, file string) {
	return f.Tag.Get("yaml"), f.Tag.Get("file")
}

// keysOf lists the keys of a section in the order of its type.
func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		name, file := tags(t.Field(i))
		if name != "" && name != "-" {
			keys = append(keys, name)
		}
		if file != "" {
			keys = append(keys, file)
		}
	}
	return keys
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.MappingNode {
		d.fault(key, "not a mapping", "keys with values, or {}")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, key, func(name, path string, value *yaml.Node) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.item(value, item, path)
		v.SetMapIndex(reflect.ValueOf(name), item)
	})
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.SequenceNode {
		d.fault(key, "not a list", "a list: [a, b], or one item a line after a dash")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, value := range n.Content {
		path := key + "[" + strconv.Itoa(i) + "]"
		d.lines[path] = value.Line
		d.item(value, v.Index(i), path)
	}
}

// item decodes an item of a list or map, where a secret may also be written
// as {value: …} or {file: …}, as it has no key to stand beside.
func (d *decoder) item(n *yaml.Node, v reflect.Value, key string) {
	if v.Type() != secretType || n.Kind != yaml.MappingNode {
		d.decode(n, v, key)
		return
	}
	var item struct {
		Value Secret `yaml:"value" file:"file"`
	}
	d.decode(n, reflect.ValueOf(&item).Elem(), key)
	v.Set(reflect.ValueOf(item.Value))
}

// secretFile reads the file that a *_file key names, without one newline at
// its end; unset if the key is empty or on a fault. Faults name no path: it
// may be the secret itself.
func (d *decoder) secretFile(n *yaml.Node, key string) Secret {
	if !d.plain(n, key) {
		return Secret{}
	}
	path, replaced, ok := d.text(n, key, "the path of a file")
	if !ok {
		return Secret{}
	}
	if !replaced && n.ShortTag() != "!!str" {
		d.fault(key, "not text", "the path of a file; quote numbers and words such as true")
		return Secret{}
	}
	if path == "" {
		return Secret{}
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(d.file(path, key)), "\n"), "\r")
	return NewSecret(text)
}

// file returns what the file holds, or nothing and a fault.
func (d *decoder) file(path, key string) []byte {
	const allowed = "a readable file; a relative path starts at the folder of this configuration"
	data, err := d.readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.fault(key, "there is no such file", allowed)
	case errors.Is(err, fs.ErrPermission):
		d.fault(key, "no permission to read the file", allowed)
	case err != nil:
		d.fault(key, "the file cannot be read", allowed)
	case len(strings.TrimSpace(string(data))) == 0:
		d.fault(key, "the file is empty", "a file with the value in it")
		return nil
	}
	return data
}

// text returns a scalar's text with ${NAME} replaced.
func (d *decoder) text(n *yaml.Node, key, allowed string) (s string, replaced, ok bool) {
	if n.Kind != yaml.ScalarNode {
		d.fault(key, "a list or section where one value belongs", allowed)
		return "", false, false
	}
	if n.ShortTag() == "!!null" {
		d.fault(key, "has no value", allowed)
		return "", false, false
	}
	s, replaced, problems := expand(n.Value, d.lookupEnv)
	for _, p := range problems {
		d.fault(key, p, "${NAME} of a variable that is set, or $${ for a plain ${")
	}
	return s, replaced, len(problems) == 0
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, key string) {
	what, allowed := describe(v.Type())
	s, replaced, ok := d.text(n, key, allowed)
	if !ok {
		return
	}
	// A text with ${NAME} in it has no type of its own and takes its field's.
	is := func(tags ...string) bool { return replaced || slices.Contains(tags, n.ShortTag()) }
	ok = false
	switch {
	case v.Type() == secretType:
		if ok = is("!!str"); ok {
			v.Set(reflect.ValueOf(NewSecret(s)))
		}
	case v.Type() == prefixType:
		var p netip.Prefix
		if p, ok = parsePrefix(s); ok {
			v.Set(reflect.ValueOf(p))
		}
	case v.Type() == durationType:
		dur, err := time.ParseDuration(s)
		if ok = err == nil; ok {
			v.SetInt(int64(dur))
		}
	case v.Kind() == reflect.String:
		if ok = is("!!str"); ok {
			v.SetString(s)
		}
	case v.Kind() == reflect.Bool:
		if ok = is("!!bool") && slices.Contains([]string{"true", "false"}, strings.ToLower(s)); ok {
			v.SetBool(strings.EqualFold(s, "true"))
		}
	case v.Kind() == reflect.Int:
		i, err := strconv.Atoi(s)
		if ok = is("!!int") && err == nil; ok {
			v.SetInt(int64(i))
		}
	case v.Kind() == reflect.Int64:
		size, err := units.RAMInBytes(s)
		if ok = err == nil; ok {
			v.SetInt(size)
		}
	case v.Kind() == reflect.Float64:
		f, err := strconv.ParseFloat(s, 64)
		if ok = is("!!int", "!!float") && err == nil && finite(f); ok {
			v.SetFloat(f)
		}
	}
	if !ok {
		d.fault(key, "not "+what, allowed)
	}
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// describe says what a scalar of the type is and how it is written. int64 is
// a size in bytes in this package.
func describe(t reflect.Type) (what, allowed string) {
	switch {
	case t == prefixType:
		return "an address", "an IP address such as 10.0.0.1 or a network such as 10.0.0.0/8"
	case t == durationType:
		return "a duration", "a number with a unit, such as 250ms, 10s, 5m or 72h"
	case t.Kind() == reflect.Bool:
		return "true or false", "true, false"
	case t.Kind() == reflect.Int:
		return "a whole number", "a whole number in decimal"
	case t.Kind() == reflect.Int64:
		return "a size", "bytes with a unit, such as 64KiB or 1MiB"
	case t.Kind() == reflect.Float64:
		return "a number", "a number such as 10 or 0.5"
	}
	return "text", "text; quote numbers and words such as true"
}

func parsePrefix(s string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err == nil
}

// json returns the node as a JSON value with its type kept. A text with
// ${NAME} in it stays text: there is no field to take a type from.
func (d *decoder) json(n *yaml.Node, key string) any {
	if !d.plain(n, key) {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		d.pairs(n, key, func(name, path string, value *yaml.Node) { m[name] = d.json(value, path) })
		return m
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			path := key + "[" + strconv.Itoa(i) + "]"
			d.lines[path] = item.Line
			list[i] = d.json(item, path)
		}
		return list
	}
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool", "!!int", "!!float":
		var value any
		err := n.Decode(&value)
		if f, isFloat := value.(float64); err != nil || isFloat && !finite(f) {
			d.fault(key, "not a number that JSON can hold", "a finite number")
			return nil
		}
		return value
	}
	s, _, _ := d.text(n, key, "any value")
	return s
}
