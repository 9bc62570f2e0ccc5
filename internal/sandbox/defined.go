package sandbox

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
