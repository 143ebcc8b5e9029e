package web

import (
	"encoding/json"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// references finds the files that a file of the app names: attributes in a page,
// imports and new URL('…') in a module, members of the manifest, icons in the
// worker.
var references = map[string]*regexp.Regexp{
	".html":        regexp.MustCompile(`(?:src|href)="([^"#]+)"`),
	".js":          regexp.MustCompile(`(?:from\s+|import\s+|import\(|new URL\(|(?:icon|badge):\s*)'([^']+\.[a-z]+)'`),
	".css":         regexp.MustCompile(`url\(["']?([^"')]+)`),
	".webmanifest": regexp.MustCompile(`"(?:src|start_url|scope)":\s*"([^"]+)"`),
}

// named returns the files that content, which is the file name's, names.
func named(name, content string) (targets []string) {
	pattern := references[path.Ext(name)]
	if pattern == nil {
		return nil
	}
	for _, match := range pattern.FindAllStringSubmatch(content, -1) {
		if target := path.Join(path.Dir(name), match[1]); target != "." { // the page itself
			targets = append(targets, target)
		}
	}
	return targets
}

// TestReferencesAndFilesMatch: what is named is there, and what is there is named;
// but a language's file is chosen when it is known which, config.json is named by
// code, and relay.js is for other pages as well.
func TestReferencesAndFilesMatch(t *testing.T) {
	t.Parallel()
	all := servedFiles(t, Brand{})
	used := map[string]bool{"index.html": true, "config.json": true}
	for name, content := range all {
		for _, target := range named(name, content) {
			if _, exists := all[target]; !exists {
				t.Errorf("%s names %s, which is not in the app", name, target)
			}
			used[target] = true
		}
	}
	for name := range all {
		if !used[name] && path.Dir(name) != "lang" {
			t.Errorf("nothing names %s", name)
		}
	}
}

// shell returns the files that the worker was told to keep.
func shell(t *testing.T, all map[string]string) []string {
	t.Helper()
	match := regexp.MustCompile(`(?m)^const FILES = (\[.*\]);$`).FindStringSubmatch(all["sw.js"])
	if match == nil {
		t.Fatal("sw.js has no list of files")
	}
	var list []string
	if err := json.Unmarshal([]byte(match[1]), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestWorkerKeepsWhatThePageNeeds: everything that the page reaches, and nothing
// that is not there: one missing file, and the worker would never be installed.
func TestWorkerKeepsWhatThePageNeeds(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]Brand{"plain": {}, "branded": {Name: "Bank", Accent: "#ffcc00", Logo: []byte("<svg/>"), LogoType: "image/svg+xml"}} {
		all := servedFiles(t, b)
		if strings.Contains(all["sw.js"], "{{") {
			t.Errorf("%s: a placeholder is left", name)
		}
		kept := shell(t, all)
		if !slices.Contains(kept, "./") || !slices.Contains(kept, b.logo()) || !slices.Contains(kept, "config.json") {
			t.Errorf("%s: kept are %v", name, kept)
		}
		for i, file := range kept {
			if _, exists := all[file]; !exists && file != "./" || slices.Contains(kept[:i], file) {
				t.Errorf("%s: %s is not there, or twice", name, file)
			}
		}
		reached := map[string]bool{}
		var follow func(name string)
		follow = func(name string) {
			for _, target := range named(name, all[name]) {
				if !reached[target] {
					reached[target] = true
					follow(target)
				}
			}
		}
		follow("index.html")
		if !reached["main.js"] || !reached["store/session.js"] || !reached["relay.js"] {
			t.Fatalf("%s: reached are only %v", name, slices.Sorted(maps.Keys(reached)))
		}
		for file := range reached {
			if (path.Ext(file) == ".js" || path.Ext(file) == ".css") && file != worker && !slices.Contains(kept, file) {
				t.Errorf("%s: the page needs %s, which the worker does not keep", name, file)
			}
		}
	}
}

// TestWorkerChangesWithEveryFile: a browser takes a new worker only if its bytes
// differ.
func TestWorkerChangesWithEveryFile(t *testing.T) {
	t.Parallel()
	workers := map[string]bool{}
	brands := []Brand{{}, {Name: "Bank"}, {Accent: "#ffcc00"}, {LoginURL: "https://bank.example.com"}, {Logo: []byte("<svg/>"), LogoType: "image/svg+xml"}}
	for _, b := range brands {
		workers[servedFiles(t, b)["sw.js"]] = true
	}
	if len(workers) != len(brands) {
		t.Errorf("%d brands have %d workers", len(brands), len(workers))
	}
	if again := servedFiles(t, Brand{})["sw.js"]; !workers[again] {
		t.Error("the same files have two workers")
	}
	script := []byte("const VERSION = '{{version}}';\nconst FILES = ['{{files}}'];\n")
	one := fillWorker(map[string][]byte{"sw.js": script, "a.js": []byte("1"), "icons/b.png": []byte("1")})
	two := fillWorker(map[string][]byte{"sw.js": script, "a.js": []byte("1"), "icons/b.png": []byte("2")})
	if string(one) == string(two) || !strings.Contains(string(one), `const FILES = ["./","a.js"];`) {
		t.Errorf("%s\n%s", one, two)
	}
}

// dictionary reads one language's texts.
func dictionary(t *testing.T, name, content string) map[string]string {
	t.Helper()
	var texts map[string]string
	if err := json.Unmarshal([]byte(content), &texts); err != nil || len(texts) == 0 {
		t.Fatalf("%s: %d texts, %v", name, len(texts), err)
	}
	return texts
}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

// placeholders are sorted, as languages put them in different orders.
func placeholders(text string) []string {
	found := placeholder.FindAllString(text, -1)
	slices.Sort(found)
	return found
}

// TestEveryLanguageIsComplete: the same keys and {placeholders} as in English, and
// no text that is empty.
func TestEveryLanguageIsComplete(t *testing.T) {
	t.Parallel()
	all := appFiles(t)
	english := dictionary(t, "en", all["lang/en.json"])
	for _, lang := range []string{"de", "en", "es", "fr", "zh"} {
		name := "lang/" + lang + ".json"
		texts := dictionary(t, name, all[name])
		for key, text := range texts {
			original, known := english[key]
			if !known || strings.TrimSpace(text) == "" {
				t.Errorf("%s: %s is empty or unknown in English", name, key)
			} else if !slices.Equal(placeholders(text), placeholders(original)) {
				t.Errorf("%s: %s has %v, in English %v", name, key, placeholders(text), placeholders(original))
			}
		}
		for key := range english {
			if texts[key] == "" {
				t.Errorf("%s lacks %s", name, key)
			}
		}
	}
	for name := range all {
		if path.Dir(name) == "lang" && !regexp.MustCompile(`^lang/(?:de|en|es|fr|zh)\.json$`).MatchString(name) {
			t.Errorf("%s is no language that this test knows", name)
		}
	}
}
