package sandbox

// Defined reports whether an object has a property of that name already.
func (s *Server) Defined(dialect, object, name string) bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t := s.store.table(dialect, s.objectName(dialect, object))
	return t != nil && t.properties[name] != nil
}
