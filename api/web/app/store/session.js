// Keeps the token in IndexedDB, the only storage the service worker can read
// too. sw.js opens the same database by the same names.

const DATABASE = 'approvals';
const STORE = 'session';
const KEY = 'token';

export const loadToken = () => transact('readonly', (store) => store.get(KEY));
export const saveToken = (token) => transact('readwrite', (store) => store.put(token, KEY));
export const clearToken = () => transact('readwrite', (store) => store.delete(KEY));

async function transact(mode, request) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const result = request(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(result.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
