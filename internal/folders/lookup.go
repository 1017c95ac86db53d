package folders

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Refers says whether ref begins with the name of a program whose models only Lookup finds: lmstudio:, ollama: or llamacpp:.
func Refers(ref string) bool {
	p, _, ok := strings.Cut(ref, ":")
	return ok && (Program(p) == LMStudio || Program(p) == Ollama || Program(p) == LlamaCpp)
}

// Lookup finds the model that ref names, in any case: as Find lists it; for Ollama also without the tag latest; for LM Studio also
// publisher/model with or without a tag such as :Q4_K_M, and a part of the end of the path if that leads to one model. A
// model with a Problem is returned as it is. If there is none, the error wraps ErrNotFound and says what is there.
func Lookup(folders []Folder, ref string) (Model, error) {
	program, name, _ := strings.Cut(ref, ":")
	var own []Folder
	for _, f := range folders {
		if f.Program == Program(program) {
			own = append(own, f)
		}
	}
	all := Find(own)
	var hits []Model
	if Program(program) == Ollama && !strings.Contains(path.Base(name), ":") {
		name += ":latest"
	}
	for _, wanted := range []func(m *Model) bool{
		func(m *Model) bool { return strings.EqualFold(m.Ref, program+":"+name) },
		func(m *Model) bool { return strings.EqualFold(m.Ref, program+":"+name+".gguf") },
	} {
		for _, m := range all {
			if wanted(&m) {
				return m, nil
			}
		}
	}
	if Program(program) == LMStudio {
		repo, tag, _ := strings.Cut(name, ":")
		if m, ok := inRepo(all, repo, tag); ok {
			return m, nil
		}
		for _, m := range all {
			file := strings.ToLower(strings.TrimPrefix(m.Ref, "lmstudio:"))
			dir := path.Dir(file)
			want := "/" + strings.ToLower(name)
			if strings.HasSuffix("/"+file, want) || strings.HasSuffix("/"+strings.TrimSuffix(file, ".gguf"), want) || strings.HasSuffix("/"+dir, want) {
				hits = append(hits, m)
			}
		}
		if len(hits) == 1 {
			return hits[0], nil
		}
	}
	var names []string
	for _, m := range hits {
		names = append(names, m.Ref)
	}
	if len(hits) > 1 {
		return Model{}, fmt.Errorf("%q fits %d models (%s): %w", ref, len(hits), some(names), ErrNotFound)
	}
	for _, m := range all {
		names = append(names, m.Ref)
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	return Model{}, fmt.Errorf("%q: %w; there: %s", ref, ErrNotFound, some(names))
}

// some joins the first of many names.
func some(names []string) string {
	const most = 8
	if n := len(names); n > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more (kvasir ls)", n-most)
	}
	return strings.Join(names, ", ")
}

// LookupHub finds a file of a repository of the hub that any program keeps whole: by its path in the repository, or if file is "" the one that tag
// means (see Choose). ok is false if there is none.
func LookupHub(folders []Folder, repo, file, tag string) (m Model, ok bool) {
	for _, f := range folders {
		if f.Program == LlamaCpp { // names there do not tell where the repository's end
			continue
		}
		all := slices.DeleteFunc(f.find(), func(m Model) bool { return m.Problem != "" })
		if file == "" {
			if m, ok := inRepo(all, repo, tag); ok {
				return m, true
			}
			continue
		}
		for _, m := range all {
			if strings.EqualFold(m.Repo, repo) && m.File == file {
				return m, true
			}
		}
	}
	return Model{}, false
}

// inRepo picks one of the models of a repository by tag.
func inRepo(all []Model, repo, tag string) (Model, bool) {
	var names []string
	byName := map[string]Model{}
	for _, m := range all {
		if repo == "" || !strings.EqualFold(m.Repo, repo) {
			continue
		}
		if m.Tag != "" && strings.EqualFold(m.Tag, tag) {
			return m, true
		}
		if m.File != "" {
			names = append(names, m.File)
			byName[m.File] = m
		}
	}
	name, ok := Choose(names, tag)
	if !ok {
		return Model{}, false
	}
	return byName[name], true // without a tag: of what is here, even if the repository has a more usual file
}
