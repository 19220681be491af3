"""What can be trained: each kind of preference model as a module that scores the images of a batch."""
