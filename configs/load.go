package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads, completes and checks the file at path. An error is either that
// the file cannot be read, or Faults.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, data, os.LookupEnv, os.ReadFile)
}

// Parse is Load with the file's text, the environment and the reading of
// other files given. name stands in faults, and relative paths in the file
// start at its folder. The error is always Faults.
func Parse(name string, data []byte, lookupEnv func(string) (string, bool), readFile func(string) ([]byte, error)) (*Config, error) {
	d := &decoder{name: name, lookupEnv: lookupEnv, lines: map[string]int{}}
	d.readFile = func(path string) ([]byte, error) {
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(name), path)
		}
		return readFile(path)
	}
	cfg := &Config{lines: d.lines}
	if root := d.document(data); root != nil {
		d.decode(root, reflect.ValueOf(cfg).Elem(), "")
		validate(d, cfg)
	}
	if len(d.faults) > 0 {
		d.faults.sort()
		return nil, d.faults
	}
	return cfg, nil
}

// document returns the root of the one YAML document in data, a mapping, or
// nil and a fault.
func (d *decoder) document(data []byte) *yaml.Node {
	var doc, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && doc.Content[0].ShortTag() == "!!null" {
		d.faultAt(1, "", "the file is empty", "at least merchants, auth.jwt and, with a real Redis, storage.keys")
		return nil
	}
	if err == nil {
		err = dec.Decode(&second)
	}
	switch {
	case err == nil:
		d.faultAt(second.Line, "", "a second YAML document", "one document")
	case !errors.Is(err, io.EOF):
		line, problem := syntaxError(err, data)
		d.faultAt(line, "", problem, "YAML 1.2 without anchors and aliases")
	case doc.Content[0].Kind != yaml.MappingNode:
		d.faultAt(doc.Content[0].Line, "", "not a mapping", "the sections "+strings.Join(keysOf(reflect.TypeFor[Config]()), ", "))
	default:
		return doc.Content[0]
	}
	return nil
}

var (
	yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	// yaml counts lines from 0 in its parser's errors, from 1 in its scanner's.
	parserError   = regexp.MustCompile(`^(?:did not find expected (?:<|node content|key|'-' indicator|',' or)|found (?:undefined tag|duplicate|incompatible))`)
	unknownAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced$`)
)

// syntaxError takes a parser's error apart. The name of an unknown anchor is
// left out: it is what an unquoted secret that starts with * looks like.
func syntaxError(err error, data []byte) (line int, problem string) {
	if m := unknownAnchor.FindStringSubmatch(err.Error()); m != nil {
		before, _, _ := bytes.Cut(data, []byte("*"+m[1]))
		return 1 + bytes.Count(before, []byte("\n")), "an alias (*name) without its anchor; quote a text that starts with *"
	}
	m := yamlError.FindStringSubmatch(err.Error())
	if m == nil {
		return 1, "not valid YAML"
	}
	line, _ = strconv.Atoi(m[1])
	if parserError.MatchString(m[2]) {
		line++
	}
	return max(line, 1), "not valid YAML in this line or below: " + m[2]
}

// expand replaces ${NAME} by the environment's value and $${ by ${. What is
// put in is not looked at again. replaced tells whether any ${NAME} was there.
func expand(s string, lookupEnv func(string) (string, bool)) (out string, replaced bool, problems []string) {
	var b strings.Builder
	for {
		at := strings.Index(s, "${")
		if at < 0 {
			b.WriteString(s)
			return b.String(), replaced, problems
		}
		if at > 0 && s[at-1] == '$' {
			b.WriteString(s[:at-1] + "${")
			s = s[at+2:]
			continue
		}
		b.WriteString(s[:at])
		name, rest, closed := strings.Cut(s[at+2:], "}")
		if !closed || !envName.MatchString(name) {
			return "", false, append(problems, "${ without a variable's name and a } after it")
		}
		value, ok := lookupEnv(name)
		if !ok {
			problems = append(problems, "the environment variable "+name+" is not set")
		}
		b.WriteString(value)
		s, replaced = rest, true
	}
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
