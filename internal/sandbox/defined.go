package sandbox

import (
	"cmp"
	"slices"
)

// Defined reports whether an object has a property of that name already, be it one that only identifies its records.
func (s *Server) Defined(dialect, object, name string) bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	object = s.objectName(dialect, object)
	if dialect == pipedriveName && object == "persons" && name == "email" {
		return true // it stands in emails
	}
	t := s.store.table(dialect, object)
	return t != nil && t.properties[name] != nil
}

// Undefine takes a property from an object, as somebody who deletes it: records keep nothing of it.
func (s *Server) Undefine(dialect, object, name string) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t := s.store.table(dialect, s.objectName(dialect, object))
	if t == nil || t.properties[name] == nil {
		return
	}
	delete(t.properties, name)
	delete(t.unique, name)
	t.names = slices.DeleteFunc(t.names, func(n string) bool { return n == name })
	t.keys = slices.DeleteFunc(t.keys, func(k *Property) bool { return k.Name == name })
	for _, r := range t.rows {
		delete(r.properties, name)
	}
}

// Definition is the definition of a property; false where there is none.
func (s *Server) Definition(dialect, object, name string) (Property, bool) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t := s.store.table(dialect, s.objectName(dialect, object))
	if t == nil || t.properties[name] == nil {
		return Property{}, false
	}
	return *t.properties[name], true
}

// UndefinePipeline takes a pipeline from an object.
func (s *Server) UndefinePipeline(dialect, object, id string) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t := s.open(dialect, object)
	t.pipelines = slices.DeleteFunc(t.pipelines, func(p Pipeline) bool { return p.ID == id })
}

// DefineOwner adds a user to whom records can belong, or replaces the one of that id.
func (s *Server) DefineOwner(dialect string, o Owner) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	owners := s.store.owners[dialect]
	if i := slices.IndexFunc(owners, func(old Owner) bool { return old.ID == o.ID }); i >= 0 {
		owners[i] = o
		return
	}
	s.store.owners[dialect] = append(owners, o)
}

// Owners are copies of the users to whom records can belong, those who have left too.
func (s *Server) Owners(dialect string) []Owner {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return slices.Clone(s.store.owners[dialect])
}

// LackScopes replaces the scopes that tokens lack, by the dialects' own names.
func (s *Server) LackScopes(scopes ...string) { s.lacking.Store(&scopes) }

func (s *Server) lacks(scope string) bool { return slices.Contains(*s.lacking.Load(), scope) }

// label is that of an option.
func (p *Property) label(option string) string { return cmp.Or(p.Labels[option], option) }

// usualOwners are those that a CRM has from the beginning, of whom the last has left.
func usualOwners(ids ...string) []Owner {
	return []Owner{
		{ID: ids[0], Email: "ann@example.com", FirstName: "Ann", LastName: "Archer"},
		{ID: ids[1], Email: "bob@example.com", FirstName: "Bob", LastName: "Baker"},
		{ID: ids[2], Email: "left@example.com", FirstName: "Lee", LastName: "Left", Left: true},
	}
}
